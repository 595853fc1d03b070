"""Fake quantization of activations in standard operators, for every kind of grouping.

Numbers of groups are constants of the graph, so that contiguous groups are blocks of an axis and
nothing is scattered.
"""

from collections.abc import Callable, Mapping

import numpy as np

from igq.errors import UnsupportedModelError
from igq.formats.onnx.codes import (
    SMALLEST_UPPER,
    STORED,
    Blocks,
    Codes,
    at_least,
    by_own_range,
    dequantize,
    quantize,
    range_seen,
    scale_of,
    through_codes,
)
from igq.formats.onnx.graph import Graph
from igq.formats.onnx.picking import by_fixed_range, picked
from igq.grouping import (
    Channels,
    ContiguousChannels,
    ContiguousKeys,
    Grouping,
    GroupQuantizer,
    PerSlice,
    Quantizer,
    Rows,
    Whole,
)
from igq.grouping.contiguous import num_cells

Shape = tuple[int, ...]


def quantize_activation(graph: Graph, quantizer: Quantizer | None, x: str, shape: Shape) -> str:
    """Add the fake quantization of a value and return the name of the quantized one.

    `shape` is that of the value in one image. A linear layer's input, (tokens, channels), is given
    as rows of all images, (images x tokens, channels); all others have an axis of images in front.

    Raises:
        UnsupportedModelError: groups of this kind have no form in standard operators.
    """
    if quantizer is None:
        return x
    grouping = quantizer.grouping
    if type(grouping) not in _KINDS or (isinstance(grouping, PerSlice) and len(grouping.axes) > 1):
        raise UnsupportedModelError(
            f"activations must have groups of the kinds {', '.join(k.__name__ for k in _KINDS)}, "
            f"ranges over one axis, to be written as ONNX, but have {grouping}; quantize the model "
            "again, or take the format native."
        )
    return _KINDS[type(grouping)](graph, quantizer, x, shape)


def group_width(length: int, num_groups: int) -> int:
    """Return the neighbours in each of the contiguous groups of an axis; the last may have fewer.

    >>> group_width(192, 8), group_width(197, 8)  # 8 groups, the last of 197 keys has 8
    (24, 27)
    """
    cells = num_cells(length)
    return -(-cells // num_groups) * -(-length // cells)


def _contiguous_channels(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    channels = shape[-1]
    blocks = Blocks(1, channels, group_width(channels, quantizer.num_groups))
    missing = -channels % blocks.width
    # bounds are widened to hold 0 in any case: filling up with 0 changes nothing
    whole = graph.node("Pad", x, graph.ints(0, missing), "", graph.ints(1)) if missing else x
    apart = graph.node("Reshape", whole, graph.ints(-1, blocks.number, blocks.width))
    seen = range_seen(graph, apart, 2, keepdims=0)
    return by_own_range(graph, Codes(quantizer.bits), x, seen, blocks)


def _contiguous_keys(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    """Quantize groups of keys, whose lower bounds are 0, as is their zero point."""
    keys, codes = shape[-1], Codes(quantizer.bits)
    blocks = Blocks(3, keys, group_width(keys, quantizer.num_groups))
    window = [1, blocks.width]
    most = graph.node("MaxPool", x, kernel_shape=window, strides=window, ceil_mode=1)
    scale = scale_of(graph, codes, at_least(graph, most, SMALLEST_UPPER))
    # the greatest code is round(upper / (upper / levels)) = levels: none needs clipping
    made = quantize(graph, x, (scale,), blocks, output_dtype=STORED[codes.stored])
    return _with_sum_of_1(graph, dequantize(graph, made, (scale,), blocks), keys)


def _slices(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    """Quantize tokens, or channels of a head, each with its own range."""
    assert isinstance(quantizer.grouping, PerSlice)
    axis = quantizer.grouping.axes[0] + len(shape) + 1
    length = (0, *shape)[axis]
    codes = Codes(quantizer.bits, 4 if quantizer.bits == 4 else 8)  # spares a node
    return by_own_range(graph, codes, x, range_seen(graph, x, axis), Blocks(axis, length, length))


def _channels(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    """Quantize channels, each with the group that it picks by its range over an image's tokens."""
    assert isinstance(quantizer, GroupQuantizer)
    if quantizer.num_groups == 1:
        return by_fixed_range(graph, quantizer, x)
    tokens, channels = shape
    apart = graph.node("Reshape", x, graph.ints(-1, tokens, channels, 1))
    parameters = picked(graph, quantizer, range_seen(graph, apart, 1))
    blocks = Blocks(1, tokens, tokens)
    quantized = through_codes(graph, Codes(quantizer.bits), apart, parameters, blocks)
    return graph.node("Reshape", quantized, graph.ints(-1, channels))


def _rows(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    """Quantize softmax rows, each with the group that it picks by its range over keys."""
    assert isinstance(quantizer, GroupQuantizer)
    assert isinstance(quantizer.grouping, Rows)
    keys = shape[-1]
    if quantizer.num_groups == 1:
        quantized = by_fixed_range(graph, quantizer, x)
    else:
        parameters = picked(graph, quantizer, range_seen(graph, x, 3))
        codes, blocks = Codes(quantizer.bits), Blocks(3, keys, keys)
        quantized = through_codes(graph, codes, x, parameters, blocks)
    if quantizer.grouping.unit:
        return _with_sum_of_1(graph, quantized, keys)
    return quantized


def _whole(graph: Graph, quantizer: Quantizer, x: str, shape: Shape) -> str:
    assert isinstance(quantizer, GroupQuantizer)
    return by_fixed_range(graph, quantizer, x)


def _with_sum_of_1(graph: Graph, x: str, keys: int) -> str:
    """Spread the part of each row's sum that quantization lost over its keys."""
    lost = graph.constant(np.float32(1 / keys)), graph.node("ReduceMean", x, graph.ints(-1))
    return graph.node("Add", x, graph.node("Sub", *lost))


_KINDS: Mapping[type[Grouping], Callable[[Graph, Quantizer, str, Shape], str]] = {
    ContiguousChannels: _contiguous_channels,
    ContiguousKeys: _contiguous_keys,
    PerSlice: _slices,
    Channels: _channels,
    Rows: _rows,
    Whole: _whole,
}
