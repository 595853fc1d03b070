"""Fitted groups in standard operators: each slice picks the scale and zero point of one of them.

The distance of a slice's range to every group, `ArgMin` and `Gather` (Eq. 4 and 5). The steps are
those of `igq.grouping.base`, so that slices pick the same groups.
"""

import numpy as np
from torch import Tensor

from igq.formats.onnx.codes import Codes, at_least, clipped
from igq.formats.onnx.graph import Graph
from igq.grouping import FittedGrouping, GroupQuantizer
from igq.grouping.base import SMALLEST_WIDTH
from igq.scheme import Assignment


def picked(graph: Graph, quantizer: GroupQuantizer, seen: tuple[str, str]) -> tuple[str, str]:
    """Add the scale and zero point that each slice picks by its range, (..., 1) twice."""
    grouping, groups = quantizer.grouping, quantizer.groups
    assert isinstance(grouping, FittedGrouping)
    distance = _DISTANCES[grouping.assignment](graph, quantizer, *seen)
    group = graph.node("ArgMin", distance, axis=-1, keepdims=1)
    scales = _floats(graph, groups.scale, "scales")
    return graph.node("Gather", scales, group), graph.node(
        "Gather", _points(graph, quantizer), group
    )


def by_fixed_range(graph: Graph, quantizer: GroupQuantizer, x: str) -> str:
    """Quantize with the range of the one group there is."""
    scale = _floats(graph, quantizer.groups.scale[0], "scale")
    zero_point = graph.constant(np.uint8(quantizer.groups.zero_point[0].item()), "zero_point")
    codes = graph.node("QuantizeLinear", x, scale, zero_point)
    made = clipped(graph, Codes(quantizer.bits), codes)
    return graph.node("DequantizeLinear", made, scale, zero_point)


def _squared_distance(graph: Graph, quantizer: GroupQuantizer, least: str, most: str) -> str:
    """Return how far ranges (..., 1) lie from the bounds of each group: (..., groups) (Eq. 4)."""
    below = graph.node("Sub", least, _floats(graph, quantizer.lower, "lower"))
    above = graph.node("Sub", most, _floats(graph, quantizer.upper, "upper"))
    return graph.node("Add", graph.node("Mul", below, below), graph.node("Mul", above, above))


def _expected_error(graph: Graph, quantizer: GroupQuantizer, least: str, most: str) -> str:
    """Return the error to expect of ranges (..., 1) with each group: (..., groups)."""
    groups = quantizer.groups
    lower = _floats(graph, groups.lower.clamp(max=0), "lower")
    upper = _floats(graph, groups.upper.clamp(min=0), "upper")
    width = at_least(graph, graph.node("Sub", most, least), SMALLEST_WIDTH)
    below = _clipping(graph, graph.node("Sub", lower, least), width)
    above = _clipping(graph, graph.node("Sub", most, upper), width)
    rounding = _floats(graph, groups.scale.square() / 12, "rounding")
    return graph.node("Add", graph.node("Add", below, above), rounding)


def _clipping(graph: Graph, beyond: str, width: str) -> str:
    """Return the error to expect of values that lie so far beyond a bound."""
    beyond = graph.node("Relu", beyond)
    share = graph.node("Div", beyond, width)
    third = graph.node("Div", graph.node("Mul", share, share), graph.constant(np.float32(3)))
    least = graph.node("Min", third, graph.constant(np.float32(1)))
    return graph.node("Mul", graph.node("Mul", beyond, beyond), least)


_DISTANCES = {
    Assignment.NEAREST: _squared_distance,
    Assignment.LEAST_ERROR: _expected_error,
}


def _floats(graph: Graph, values: Tensor, name: str) -> str:
    return graph.constant(values.cpu().numpy(), name)


def _points(graph: Graph, quantizer: GroupQuantizer) -> str:
    zero_points = quantizer.groups.zero_point.cpu().numpy().astype(np.uint8)
    return graph.constant(zero_points, "zero_points")
