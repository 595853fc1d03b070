"""Models as onnxruntime and OpenVINO run them: in igq's forms, and in those of others.

forms      writes a model in each form
others     8-bit and 4-bit forms that onnxruntime's and OpenVINO's own tools make
runner     the function from images to logits
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from torch import nn

from igq.errors import UnsupportedModelError
from igq.formats.onnx import write_onnx, write_onnx_igq
from igq.formats.onnx.plain import INPUT, OUTPUT, plain_graph
from igq.formats.onnx.sessions import others
from igq.formats.onnx.standard import FILE
from igq.quantized import with_slots
from igq.runtime.library import library_path

FULL, OPERATORS, STANDARD = "fp32 ONNX", "format onnx-igq", "format onnx"
DYNAMIC = "onnxruntime's int8 (dynamic)"
NBITS = "onnxruntime's MatMulNBits, 4 bits"
OPENVINO = "OpenVINO's int8"


@dataclass(frozen=True)
class Form:
    """A form of a model as a file; None where the model cannot be written so, with the reason."""

    name: str
    file: Path | None
    reason: str = ""


def forms(
    quantized: nn.Module, full: nn.Module, folder: Path, without: Collection[str] = ()
) -> Iterator[Form]:
    """Write a model in each form to a folder: full precision, ours, and those of other tools.

    `full` is the full-precision model of the same architecture. It is always written; others that
    are named in `without` are not.
    """
    whole = folder / "full.onnx"
    patches: Any = full.patch_embed
    shape = (patches.proj.in_channels, *patches.img_size)
    makers: dict[str, Callable[[], Path]] = {
        FULL: lambda: full_precision(full, whole),
        OPERATORS: lambda: write_onnx_igq(quantized, folder / "operators") / FILE,
        STANDARD: lambda: write_onnx(quantized, folder / "standard") / FILE,
        DYNAMIC: lambda: others.dynamic(whole, folder / "dynamic.onnx"),
        NBITS: lambda: others.four_bits(whole, folder / "nbits.onnx"),
        OPENVINO: lambda: others.openvino(whole, folder / "openvino.xml", shape),
    }
    for name, make in makers.items():
        if name in without and name != FULL:
            continue
        try:
            yield Form(name, make())
        except (UnsupportedModelError, others.NotInstalledError) as error:
            yield Form(name, None, str(error))
            if name == FULL:  # those of others begin with it
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
    if file.suffix == ".xml":
        return others.openvino_runner(file, threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # else threads of one session wait busily while another form is measured
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if (library := library_path()) is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def bytes_of(file: Path) -> int:
    """Return the bytes of a form's files."""
    beside = file.with_suffix(".bin")
    weights = beside.stat().st_size if file.suffix == ".xml" else 0
    return file.stat().st_size + weights
