"""Models as onnxruntime runs them, in every form that this package can write."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from igq.errors import UnsupportedModelError
from igq.formats.onnx import write_onnx, write_onnx_igq
from igq.formats.onnx.plain import INPUT, OUTPUT, plain_graph
from igq.formats.onnx.standard import FILE
from igq.quantized import with_slots
from igq.runtime.library import library_path

FULL, OPERATORS, STANDARD = "fp32 ONNX", "format onnx-igq", "format onnx"
DYNAMIC = "onnxruntime's int8 (dynamic)"


@dataclass(frozen=True)
class Form:
    """A form of a model as an ONNX file; None where the model cannot be written so."""

    name: str
    file: Path | None
    reason: str = ""


def forms(quantized: nn.Module, full: nn.Module, folder: Path) -> Iterator[Form]:
    """Write a model in each form to a folder: full precision, ours, and onnxruntime's own int8.

    `full` is the full-precision model of the same architecture.
    """
    files = {FULL: folder / "full.onnx", DYNAMIC: folder / "dynamic.onnx"}

    def dynamic() -> Path:
        logging.disable(logging.WARNING)  # it advises a step that changes nothing here
        try:
            quantize_dynamic(files[FULL], files[DYNAMIC], weight_type=QuantType.QInt8)
        finally:
            logging.disable(logging.NOTSET)
        return files[DYNAMIC]

    makers: dict[str, Callable[[], Path]] = {
        FULL: lambda: full_precision(full, files[FULL]),
        OPERATORS: lambda: write_onnx_igq(quantized, folder / "operators") / FILE,
        STANDARD: lambda: write_onnx(quantized, folder / "standard") / FILE,
        DYNAMIC: dynamic,
    }
    for name, make in makers.items():
        try:
            yield Form(name, make())
        except UnsupportedModelError as error:
            yield Form(name, None, str(error))
            if name == FULL:  # dynamic quantization begins with it
                return


def full_precision(model: nn.Module, file: Path) -> Path:
    """Write a full-precision plain vision transformer in standard operators.

    Raises:
        UnsupportedModelError: the model is of another family.
    """
    made = plain_graph(with_slots(model, lambda layer: nn.Identity())).model()
    onnx.save(made, file)
    return file


def runner(file: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """Return the function from images to logits, on so many threads of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # else threads of one session wait busily while another form is measured
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if (library := library_path()) is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]
