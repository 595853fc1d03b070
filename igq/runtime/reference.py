"""The runtime's operators in torch: they read the same panels, and compute what the library does.

This serves where there is no compiled library, and says what the library's results must be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rotation import rotate
from igq.errors import RuntimeLibraryError
from igq.grouping import (
    Channels,
    ContiguousChannels,
    ContiguousKeys,
    GroupQuantizer,
    Quantizer,
    Rows,
    SliceQuantizer,
)
from igq.grouping.contiguous import contiguous_starts, fake_quantize_contiguous
from igq.grouping.per_slice import HEAD_CHANNELS, HEAD_TOKENS
from igq.runtime import panels
from igq.scheme import Assignment

_ASSIGNMENTS: Mapping[int, Assignment | None] = {n: a for a, n in panels.RULES.items()}


@dataclass(frozen=True, eq=False)
class _Sections:
    """Reads a panel's sections in order."""

    held: NDArray[np.uint8]
    header: list[int]

    @classmethod
    def of(cls, panel: UInt8[Tensor, " size"], magic: bytes) -> "_Sections":
        held = panel.cpu().numpy()
        if len(held) < panels.ALIGNMENT or held[:4].tobytes() != magic:
            raise RuntimeLibraryError("a panel must have the mark of its operator, but has not.")
        header = held[: panels.ALIGNMENT].view("<i4").tolist()
        if header[1] != panels.VERSION:
            raise RuntimeLibraryError("a panel must have the version of this runtime, but has not.")
        return cls(held, header)

    def take(self, start: int, size: int) -> tuple[NDArray[np.uint8], int]:
        end = start + size + -size % panels.ALIGNMENT
        if end > len(self.held):
            raise RuntimeLibraryError(
                "a panel must have as many bytes as its numbers ask for, but has not."
            )
        return self.held[start : start + size], end

    def floats(self, start: int, count: int) -> tuple[Tensor, int]:
        taken, end = self.take(start, 4 * count)
        return torch.from_numpy(taken.view("<f4").copy()), end

    def number(self, place: int) -> float:
        return float(np.int32(self.header[place]).view(np.float32))


def linear(
    x: Float[Tensor, "images *tokens inputs"],
    panel: UInt8[Tensor, " size"],
    outputs: int,
    residual: Float[Tensor, "images *tokens outputs"] | None = None,
) -> Float[Tensor, "images *tokens outputs"]:
    """Return the outputs of a quantized linear layer, `residual` added.

    Raises:
        RuntimeLibraryError: the panel is damaged, or of a layer of another shape.
    """
    held = _Sections.of(panel, panels.MAGIC_LINEAR)
    inputs, made, weight_bits, bits, rule, groups, rotated, flags = held.header[2:10]
    if (x.shape[-1], outputs) != (inputs, made):
        raise RuntimeLibraryError(
            f"the panel is for {inputs} and {made} channels, but got {x.shape[-1]} and {outputs}."
        )
    filled = outputs + -outputs % panels.LINE
    scale, at = held.floats(panels.ALIGNMENT, filled)
    zero_point, at = held.floats(at, filled)
    bias, at = held.floats(at, filled)
    if flags & panels.NORM:
        gain, at = held.floats(at, inputs)
        shift, at = held.floats(at, inputs)
        x = F.layer_norm(x, (inputs,), gain, shift, held.number(10))
    if rotated:
        signs, at = held.floats(at, rotated)
        x = rotate(x, signs)
    quantizer, at = _quantizer(held, at, bits, rule, groups)
    codes = _codes(held, at, (filled, inputs), weight_bits, quantizer)
    weight = QuantizedTensor(codes, scale, zero_point, weight_bits).dequantize()
    y = F.linear(quantizer(x), weight[:outputs], bias[:outputs])
    if flags & panels.GELU:
        y = F.gelu(y)
    return y if residual is None else y + residual


def self_attention(
    qkv: Float[Tensor, "images tokens channels3"], panel: UInt8[Tensor, " size"]
) -> Float[Tensor, "images tokens channels"]:
    """Return each query's mean of the values, from q, k and v side by side, heads within.

    Raises:
        RuntimeLibraryError: the panel is damaged, or of an attention of another shape.
    """
    held = _Sections.of(panel, panels.MAGIC_ATTENTION)
    heads, width, q_bits, k_bits, v_bits, bits, rule, groups, flags = held.header[2:11]
    if qkv.shape[-1] != 3 * heads * width:
        raise RuntimeLibraryError(
            f"the panel is for {heads * width} channels, but got {qkv.shape[-1] // 3}."
        )
    q, k, v = qkv.unflatten(-1, (3, heads, width)).permute(2, 0, 3, 1, 4).unbind(0)
    q = HEAD_TOKENS.quantize_own_ranges(q, q_bits)
    k = HEAD_TOKENS.quantize_own_ranges(k, k_bits)
    v = HEAD_CHANNELS.quantize_own_ranges(v, v_bits)
    softmax = (q * held.number(11) @ k.mT).softmax(-1)
    if rule == panels.RULES[None]:
        mapped = fake_quantize_contiguous(softmax, groups, bits)
    else:
        bounds, at = held.floats(panels.ALIGNMENT, groups)
        upper, _ = held.floats(at, groups)
        mapped = GroupQuantizer(bounds, upper, bits, Rows(_assignment(rule)))(softmax)
    if flags & panels.KEEPS_SUM:
        mapped = ContiguousKeys().completed(mapped)
    return (mapped @ v).transpose(1, 2).flatten(2)


def _assignment(rule: int) -> Assignment:
    found = _ASSIGNMENTS.get(rule)
    if found is None:
        raise RuntimeLibraryError("a panel must have a rule of this runtime, but has not.")
    return found


def _quantizer(
    held: _Sections, at: int, bits: int, rule: int, groups: int
) -> tuple[Quantizer, int]:
    if rule == panels.RULES[None]:
        return SliceQuantizer(bits, ContiguousChannels(), groups), at
    lower, at = held.floats(at, groups)
    upper, at = held.floats(at, groups)
    for _ in ("scale", "zero point"):  # which follow from the bounds
        _, at = held.floats(at, groups)
    return GroupQuantizer(lower, upper, bits, Channels(_assignment(rule))), at


def _codes(
    held: _Sections, at: int, shape: tuple[int, int], bits: int, quantizer: Quantizer
) -> UInt8[Tensor, "outputs inputs"]:
    """Return the weight's codes from lines, or channel by channel where channels pick groups."""
    filled, inputs = shape
    fitted = isinstance(quantizer, GroupQuantizer)
    if fitted and quantizer.num_groups > 1:
        taken, _ = held.take(at, filled * inputs)
        return torch.from_numpy(taken.reshape(inputs, filled).T.copy())
    halves = bits <= 4
    step = 8 if halves else 4
    starts = contiguous_starts(inputs, 1 if fitted else quantizer.num_groups)
    widths = [b - a for a, b in pairwise(starts)]
    columns = sum(width + -width % step for width in widths)
    taken, _ = held.take(at, filled * columns // (2 if halves else 1))
    words = taken.reshape(filled // panels.LINE, -1, panels.LINE, 4)
    if halves:
        words = np.stack((words & 15, words >> 4), axis=2).reshape(len(words), -1, panels.LINE, 4)
    codes = words.swapaxes(1, 2).reshape(filled, columns)
    parts, first = [], 0
    for width in widths:
        parts.append(codes[:, first : first + width])
        first += width + -width % step
    return torch.from_numpy(np.concatenate(parts, axis=1).copy())
