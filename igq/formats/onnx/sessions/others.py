"""Forms of fewer bits that onnxruntime's and OpenVINO's own tools make of a full-precision file.

They have one scale for a whole activation, or none; they are what a user would take otherwise.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

BLOCK = 32
"""Inputs that share a scale in `MatMulNBits`."""
IMAGES = 8
"""Images of noise that OpenVINO's activations are calibrated on: time does not depend on them."""


class NotInstalledError(Exception):
    """A form needs a package that is not there; the message names it."""


def dynamic(full: Path, file: Path) -> Path:
    """Write 8-bit weights, and activations that take one scale each while the model runs."""
    logging.disable(logging.WARNING)  # it advises a step that changes nothing here
    try:
        quantize_dynamic(full, file, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return file


def four_bits(full: Path, file: Path) -> Path:
    """Write 4-bit weights for `MatMulNBits`, whose activations stay float32.

    Raises:
        NotInstalledError: onnxruntime's tool lacks a package.
    """
    try:
        tool = import_module("onnxruntime.quantization.matmul_nbits_quantizer")
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"{error.name} must be installed, but is not") from error
    logging.disable(logging.INFO)  # a line for each layer
    try:
        made = tool.MatMulNBitsQuantizer(_with_products(onnx.load(full)), block_size=BLOCK)
        made.process()
        made.model.save_model_to_file(str(file))
    finally:
        logging.disable(logging.NOTSET)
    return file


def openvino(full: Path, file: Path, shape: tuple[int, ...]) -> Path:
    """Write 8-bit weights and activations with OpenVINO's own tool, for images of this shape.

    Raises:
        NotInstalledError: openvino or nncf is not installed.
    """
    lacking = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if lacking:
        raise NotInstalledError(
            f"{' and '.join(lacking)} must be installed: pip install openvino nncf"
        )
    core, nncf = import_module("openvino"), import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    images = np.random.default_rng(0).standard_normal((IMAGES, 1, *shape), np.float32)
    kind = nncf.ModelType.TRANSFORMER
    with redirect_stdout(sys.stderr):  # it draws bars, and output may be JSON
        made = nncf.quantize(
            core.Core().read_model(full), nncf.Dataset(list(images)),
            model_type=kind, subset_size=IMAGES,
        )  # fmt: skip
    core.save_model(made, file, compress_to_fp16=False)
    return file


def openvino_runner(file: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """Return the function from images to logits in OpenVINO."""
    core = import_module("openvino").Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(file, "CPU", config)
    return lambda images: compiled(images)[0]


def _with_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each `Gemm` by a product and a sum: `MatMulNBits` is made of `MatMul` alone."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "Gemm":
            model.graph.node.append(node)
            continue
        x, weight, bias = node.input
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("transB") and not weight.endswith("/transposed"):
            turned = onnx.numpy_helper.to_array(held[weight]).T.copy()
            weight = f"{weight}/transposed"
            model.graph.initializer.append(onnx.numpy_helper.from_array(turned, weight))
        product = f"{node.output[0]}/product"
        model.graph.node.extend([
            helper.make_node("MatMul", [x, weight], [product], name=product),
            helper.make_node("Add", [product, bias], list(node.output), name=node.name),
        ])  # fmt: skip
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model
