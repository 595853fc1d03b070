"""From values to codes and back in standard operators (Eq. 1-3), with scales for blocks of an axis.

`QuantizeLinear` takes scales and zero points that the graph computes, and rounds, adds the zero
point and clips as `igq.arithmetic.affine` does: codes are the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from igq.formats.onnx.graph import Graph

SMALLEST_UPPER = 1e-30
"""The least upper bound, so that no scale is 0. torch raises scales to 1e-12, which any range wider
than 3e-10 has anyway."""
STORED = {4: TensorProto.UINT4, 8: TensorProto.UINT8}
"""Bits of a stored code -> its type."""


@dataclass(frozen=True)
class Blocks:
    """Neighbours along an axis that share a scale; the last block may be shorter."""

    axis: int
    length: int
    width: int

    @property
    def number(self) -> int:
        """The number of scales along the axis."""
        return -(-self.length // self.width)


@dataclass(frozen=True)
class Codes:
    """The bits of codes, and those that they take while the graph runs.

    Codes of a byte are quick; where they have fewer bits they are clipped in a node of its own.
    """

    bits: int
    stored: int = 8

    @property
    def levels(self) -> int:
        """The greatest code."""
        return int(2**self.bits - 1)


def range_seen(graph: Graph, x: str, axis: int, keepdims: int = 1) -> tuple[str, str]:
    """Add the least and greatest value along an axis."""
    least = graph.node("ReduceMin", x, graph.ints(axis), keepdims=keepdims)
    return least, graph.node("ReduceMax", x, graph.ints(axis), keepdims=keepdims)


def by_own_range(graph: Graph, codes: Codes, x: str, seen: tuple[str, str], blocks: Blocks) -> str:
    """Quantize with the least and greatest value of each block as bounds (Eq. 1-3)."""
    least, most = seen
    lower = graph.node("Min", least, graph.constant(np.float32(0)))
    scale = scale_of(graph, codes, graph.node("Sub", at_least(graph, most, SMALLEST_UPPER), lower))
    each = Blocks(blocks.axis, blocks.number, 1)
    negated = graph.node("Neg", lower)
    zero_point = quantize(graph, negated, (scale,), each, output_dtype=STORED[codes.stored])
    return through_codes(graph, codes, x, (scale, zero_point), blocks)


def through_codes(
    graph: Graph, codes: Codes, x: str, parameters: tuple[str, str], blocks: Blocks
) -> str:
    """Quantize with scales and zero points, and back."""
    made = clipped(graph, codes, quantize(graph, x, parameters, blocks))
    return dequantize(graph, made, parameters, blocks)


def quantize(
    graph: Graph, x: str, parameters: tuple[str, ...], blocks: Blocks, **attributes: Any
) -> str:
    """Add codes; parameters are scales, and zero points if any."""
    axis, width = blocks.axis, blocks.width
    return graph.node("QuantizeLinear", x, *parameters, axis=axis, block_size=width, **attributes)


def dequantize(graph: Graph, codes: str, parameters: tuple[str, ...], blocks: Blocks) -> str:
    """Add the values of codes."""
    axis, width = blocks.axis, blocks.width
    return graph.node("DequantizeLinear", codes, *parameters, axis=axis, block_size=width)


def clipped(graph: Graph, codes: Codes, made: str) -> str:
    """Add the greatest code that the bits hold as a bound, where more are stored."""
    if codes.bits == codes.stored:
        return made
    return graph.node("Clip", made, "", graph.constant(np.uint8(codes.levels)))


def scale_of(graph: Graph, codes: Codes, width: str) -> str:
    """Add the scale of bounds that are so far apart (Eq. 1)."""
    return graph.node("Div", width, graph.constant(np.float32(codes.levels)))


def at_least(graph: Graph, x: str, least: float) -> str:
    """Add a lower bound."""
    return graph.node("Max", x, graph.constant(np.float32(least)))
