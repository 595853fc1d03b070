"""Parts of a vision transformer in standard operators: products, norms, activation functions.

Values are rows, (images x tokens, channels), so that a linear layer is one `Gemm`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rotation import rotate
from igq.errors import UnsupportedModelError
from igq.formats.onnx.activations import quantize_activation
from igq.formats.onnx.graph import Graph
from igq.grouping import Quantizer
from igq.modules import Conv2d, Linear

PACKED_BITS = 4
"""The most bits of weights that are stored two to a byte."""


def quantizer_in(slot: Any) -> Quantizer | None:
    """Return the quantizer of a slot; None where activations pass as they are."""
    return getattr(slot, "quantizer", None)


def linear(graph: Graph, name: str, module: Any, x: str, tokens: int) -> str:
    """Add a linear layer of rows: rotation, quantization of the input, product and bias."""
    assert isinstance(module, Linear)
    with graph.scope(name):
        shape = (tokens, module.in_features) if tokens > 1 else (module.in_features,)
        rotated = _rotated(graph, module, x)
        quantized = quantize_activation(graph, quantizer_in(module.activation), rotated, shape)
        # zeros where there is no bias: onnxruntime fuses a Gemm of two operands, and then fails
        zeros = np.zeros(module.out_features, np.float32)
        bias = graph.constant(zeros) if module.bias is None else tensor(graph, module.bias, "bias")
        return graph.node("Gemm", quantized, weight(graph, module), bias, transB=1)


def convolution(graph: Graph, name: str, module: Any, x: str, shape: tuple[int, ...]) -> str:
    """Add a convolution of images of this shape."""
    assert isinstance(module, Conv2d)
    with graph.scope(name):
        quantized = quantize_activation(graph, quantizer_in(module.activation), x, shape)
        bias = [] if module.bias is None else [tensor(graph, module.bias, "bias")]
        return graph.node(
            "Conv",
            quantized,
            weight(graph, module),
            *bias,
            strides=list(module.stride),
            pads=[*module.padding, *module.padding],
            dilations=list(module.dilation),
            group=module.groups,
        )


def weight(graph: Graph, module: Linear | Conv2d) -> str:
    """Add a layer's weight: codes and `DequantizeLinear` for each output, or floating point."""
    held = module.quantized_weight
    if held is None:
        return tensor(graph, module.weight, "weight")
    store = graph.packed if held.bits <= PACKED_BITS else graph.constant
    codes = store(held.codes.cpu().numpy(), "codes")
    zero_point = store(_zero_point(held), "zero_point")
    return graph.node(
        "DequantizeLinear", codes, tensor(graph, held.scale, "scale"), zero_point, axis=0
    )


def tensor(graph: Graph, values: Tensor, name: str) -> str:
    """Add a constant of a tensor's values."""
    return graph.constant(values.detach().cpu().numpy(), name)


def norm(graph: Graph, name: str, module: Any, x: str) -> str:
    """Add a normalisation of the last axis; nothing for `nn.Identity`.

    Raises:
        UnsupportedModelError: it is of another kind than those that are written as ONNX.
    """
    return _part(_NORMS, graph, name, module, x)


def activation(graph: Graph, name: str, module: Any, x: str) -> str:
    """Add an activation function.

    Raises:
        UnsupportedModelError: it is of another kind than those that are written as ONNX.
    """
    return _part(_FUNCTIONS, graph, name, module, x)


def scaled(graph: Graph, name: str, module: Any, x: str) -> str:
    """Add a layer scale; nothing for `nn.Identity`."""
    return _part(_SCALES, graph, name, module, x)


_Part = Callable[[Graph, Any, str], str]


def _part(known: Mapping[str, _Part], graph: Graph, name: str, module: Any, x: str) -> str:
    kind = type(module).__name__
    if kind not in known:
        raise UnsupportedModelError(
            f"{name} must be one of {', '.join(known)} to be written as ONNX, but is a {kind}; "
            "the format native holds it."
        )
    with graph.scope(name):
        return known[kind](graph, module, x)


def _rotated(graph: Graph, module: Linear, x: str) -> str:
    if module.rotation is None:
        return x
    apart = graph.node("Reshape", x, graph.ints(-1, len(module.rotation)))
    matrix = rotate(torch.eye(len(module.rotation)), module.rotation.cpu().float())
    rotated = graph.node("MatMul", apart, tensor(graph, matrix, "rotation"))
    return graph.node("Reshape", rotated, graph.ints(-1, module.in_features))


def _zero_point(held: QuantizedTensor) -> Any:
    return held.zero_point.cpu().numpy().astype(np.uint8)


def _same(graph: Graph, module: Any, x: str) -> str:
    return x


def _layer_norm(graph: Graph, module: Any, x: str) -> str:
    width = module.normalized_shape[-1]
    ones = np.ones(width, np.float32)
    scale = graph.constant(ones) if module.weight is None else tensor(graph, module.weight, "scale")
    bias = [] if module.bias is None else [tensor(graph, module.bias, "bias")]
    return graph.node("LayerNormalization", x, scale, *bias, axis=-1, epsilon=module.eps)


def _rms_norm(graph: Graph, module: Any, x: str) -> str:
    mean = graph.node("ReduceMean", graph.node("Mul", x, x), graph.ints(-1))
    power = graph.node("Add", mean, graph.constant(np.float32(module.eps)))
    normed = graph.node("Div", x, graph.node("Sqrt", power))
    if module.weight is None:
        return normed
    return graph.node("Mul", normed, tensor(graph, module.weight, "scale"))


def _gelu(graph: Graph, module: Any, x: str) -> str:
    return graph.node("Gelu", x, approximate=getattr(module, "approximate", "none"))


def _gelu_tanh(graph: Graph, module: Any, x: str) -> str:
    return graph.node("Gelu", x, approximate="tanh")


def _quick_gelu(graph: Graph, module: Any, x: str) -> str:
    steep = graph.node("Mul", x, graph.constant(np.float32(1.702)))
    return graph.node("Mul", x, graph.node("Sigmoid", steep))


def _silu(graph: Graph, module: Any, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _of_one_operator(operator: str) -> _Part:
    return lambda graph, module, x: graph.node(operator, x)


def _layer_scale(graph: Graph, module: Any, x: str) -> str:
    return graph.node("Mul", x, tensor(graph, module.gamma, "gamma"))


_NORMS: Mapping[str, _Part] = {
    "Identity": _same,
    "LayerNorm": _layer_norm,
    "LayerNormFp32": _layer_norm,
    "RmsNorm": _rms_norm,
    "RmsNormFp32": _rms_norm,
}
_FUNCTIONS: Mapping[str, _Part] = {
    "Identity": _same,
    "GELU": _gelu,
    "GELUTanh": _gelu_tanh,
    "QuickGELU": _quick_gelu,
    "SiLU": _silu,
    "ReLU": _of_one_operator("Relu"),
    "Sigmoid": _of_one_operator("Sigmoid"),
    "Tanh": _of_one_operator("Tanh"),
}
_SCALES: Mapping[str, _Part] = {"Identity": _same, "LayerScale": _layer_scale}
