"""Panels: everything that one operator needs of its layer, as bytes.

A panel is a header of 16 numbers (int32) and sections of float32 and bytes, each filled up to 64
bytes; `igq/runtime/src/panel.h` names them in order and checks every one. Weights are stored in
*lines* of 16 outputs, as the processor multiplies them: for each 4 inputs 64 bytes, 4 for each
output in turn; codes of 4 bits or fewer for each 8 inputs, the first 4 in the low halves.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.errors import UnsupportedModelError
from igq.grouping import GroupQuantizer, Quantizer
from igq.grouping.contiguous import Contiguous, contiguous_starts
from igq.scheme import Assignment

VERSION = 2
MAGIC_LINEAR, MAGIC_ATTENTION = b"IGQL", b"IGQA"
NORM, GELU, KEEPS_SUM = 1, 2, 4
RULES = {None: 0, Assignment.NEAREST: 1, Assignment.LEAST_ERROR: 2}
"""Rule by which a slice picks its group -> its number; None: a range of its own."""
HEADER = 16
"""Numbers of a header."""
LINE = 16
"""Outputs of a line."""
ALIGNMENT = 64
"""Bytes that each section is filled up to."""


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A linear layer as one operator computes it, its neighbours included."""

    weight: QuantizedTensor
    quantizer: Quantizer
    bias: Float[Tensor, " outputs"] | None = None
    signs: Float[Tensor, " width"] | None = None
    """The signs that begin the rotation of its input; None where the input is not rotated."""
    norm: nn.LayerNorm | None = None
    """The normalisation of its input; None where the input is taken as it is."""
    gelu: bool = False
    """Whether GELU is applied to its output."""


def linear_panel(layer: LinearLayer) -> UInt8[Tensor, " size"]:
    """Return the panel of a linear layer.

    Raises:
        UnsupportedModelError: its input is grouped in a way that the runtime cannot compute.

    >>> from igq.arithmetic.weights import quantize_weight
    >>> from igq.grouping import TOKENS, SliceQuantizer
    >>> weight = quantize_weight(torch.randn(16, 8), bits=4)
    >>> len(linear_panel(LinearLayer(weight, SliceQuantizer(8, TOKENS))))  # 64 of codes
    320
    """
    weight, quantizer = layer.weight, layer.quantizer
    outputs, inputs = weight.codes.shape
    filled = -(-outputs // LINE) * LINE
    rule, groups = _rule(quantizer), quantizer.num_groups
    flags = (NORM if layer.norm else 0) | (GELU if layer.gelu else 0)
    rotated = 0 if layer.signs is None else len(layer.signs)
    epsilon = layer.norm.eps if layer.norm else 0.0
    header = (inputs, outputs, weight.bits, quantizer.bits, rule, groups, rotated, flags)
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias
    sections = [_floats(t, filled) for t in (weight.scale, weight.zero_point, bias)]
    if layer.norm:
        sections += [_floats(t, inputs) for t in _affine(layer.norm)]
    if layer.signs is not None:
        sections.append(_floats(layer.signs, rotated))
    sections += _fitted(quantizer)
    sections.append(_lines(weight, quantizer))
    return _panel(MAGIC_LINEAR, header, epsilon, sections)


def attention_panel(
    heads: int, width: int, operands: tuple[Quantizer, Quantizer, Quantizer, Quantizer]
) -> UInt8[Tensor, " size"]:
    """Return the panel of an attention with the quantizers of q, k, v and the softmax map.

    Raises:
        UnsupportedModelError: one is of a kind that the runtime cannot compute.

    >>> from igq.grouping import HEAD_CHANNELS, HEAD_TOKENS, ContiguousKeys, SliceQuantizer
    >>> q, v = SliceQuantizer(4, HEAD_TOKENS), SliceQuantizer(4, HEAD_CHANNELS)
    >>> len(attention_panel(3, 64, (q, q, v, SliceQuantizer(4, ContiguousKeys(), 8))))
    64
    """
    expected = ("head tokens", "head tokens", "head channels")
    for quantizer, tag in zip(operands[:3], expected, strict=True):
        if quantizer.grouping.tag != tag:
            raise _unsupported(quantizer)
    softmax = operands[3]
    bits = [quantizer.bits for quantizer in operands]
    flags = KEEPS_SUM if softmax.grouping.keeps_sum else 0
    header = (heads, width, *bits, _rule(softmax), softmax.num_groups, flags)
    return _panel(MAGIC_ATTENTION, header, width**-0.5, _fitted(softmax))


def _rule(quantizer: Quantizer) -> int:
    if isinstance(quantizer, GroupQuantizer):
        return RULES[quantizer.grouping.assignment]
    if isinstance(quantizer.grouping, Contiguous) or quantizer.grouping.tag == "tokens":
        return RULES[None]
    raise _unsupported(quantizer)


def _unsupported(quantizer: Quantizer) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the runtime must know how slices are grouped, but got {quantizer.grouping.tag} "
        "with ranges of their own; run this model with torch."
    )


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    gain = torch.ones(norm.normalized_shape) if norm.weight is None else norm.weight
    return gain, torch.zeros_like(gain) if norm.bias is None else norm.bias


def _fitted(quantizer: Quantizer) -> list[bytes]:
    if not isinstance(quantizer, GroupQuantizer):
        return []
    return [_floats(t, len(t)) for t in quantizer.groups]


def _lines(weight: QuantizedTensor, quantizer: Quantizer) -> bytes:
    """Return the codes in lines; channel by channel where channels pick their groups."""
    codes = weight.codes.cpu().numpy()
    codes = np.pad(codes, ((0, -len(codes) % LINE), (0, 0)))
    if isinstance(quantizer, GroupQuantizer) and quantizer.num_groups > 1:
        return codes.T.tobytes()
    halves = weight.bits <= 4
    groups = 1 if isinstance(quantizer, GroupQuantizer) else quantizer.num_groups
    starts = contiguous_starts(codes.shape[1], groups)
    step = 8 if halves else 4
    parts = [codes[:, a:b] for a, b in pairwise(starts)]
    columns = np.concatenate([np.pad(p, ((0, 0), (0, -p.shape[1] % step))) for p in parts], 1)
    words = columns.reshape(-1, LINE, columns.shape[1] // 4, 4).swapaxes(1, 2)
    if halves:
        words = words[:, 0::2] | words[:, 1::2] << 4
    return words.tobytes()


def _floats(tensor: Tensor, count: int) -> bytes:
    values: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return np.pad(values, (0, count - len(values))).astype("<f4").tobytes()


def _panel(
    magic: bytes, numbers: tuple[int, ...], last: float, sections: list[bytes]
) -> UInt8[Tensor, " size"]:
    header = np.zeros(HEADER, "<i4")
    header[2 : 2 + len(numbers)] = numbers
    header[2 + len(numbers)] = np.float32(last).view("<i4")
    header[1] = VERSION
    whole = magic + header.tobytes()[len(magic) :]
    for section in sections:
        whole += section + bytes(-len(section) % ALIGNMENT)
    return torch.frombuffer(bytearray(whole), dtype=torch.uint8)
