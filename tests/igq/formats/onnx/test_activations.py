"""Fake quantization in standard operators: the values of the torch quantizers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from igq import Assignment, SliceQuantizer, UnsupportedModelError
from igq.formats.onnx.activations import group_width, quantize_activation
from igq.formats.onnx.graph import Graph
from igq.formats.onnx.verification import session
from igq.grouping import (
    Channels,
    ContiguousChannels,
    ContiguousKeys,
    FittedGrouping,
    Grouping,
    PerSlice,
    Quantizer,
    Rows,
    Whole,
)
from igq.grouping.contiguous import contiguous_groups
from igq.grouping.per_slice import HEAD_CHANNELS, HEAD_TOKENS, TOKENS
from tests.igq.drawn import SEEDS, random_activation

BITS = (2, 4, 5, 8)
INPUT, HEADS = (2, 5, 24), (2, 3, 5, 24)
"""Images, tokens, channels; and images, heads, queries, keys or width."""


def in_onnx(quantizer: Quantizer, x: Tensor) -> Tensor:
    """The value that the graph gives: a linear layer's input passes as rows of all images."""
    rows = isinstance(quantizer.grouping, (Channels, ContiguousChannels))
    given = x.flatten(0, 1) if rows else x
    graph = Graph("test")
    value = graph.input("x", np.float32, ["images", *given.shape[1:]])
    made = quantize_activation(graph, quantizer, value, tuple(x.shape[1:]))
    graph.output("y", made, np.float32, ["images", *given.shape[1:]])
    outputs = session(graph.model().SerializeToString()).run(None, {"x": given.numpy()})
    return torch.from_numpy(outputs[0]).view(x.shape)


def fitted(grouping: FittedGrouping, x: Tensor, num_groups: int, bits: int) -> Quantizer:
    ranges = grouping.ranges(x).reshape(len(x), -1, 2)
    return grouping.fit(ranges, [num_groups], bits)[num_groups]


def assert_same(quantizer: Quantizer, x: Tensor) -> None:
    made, expected = in_onnx(quantizer, x), quantizer(x)
    if quantizer.grouping.keeps_sum:  # sums are in another order
        assert torch.allclose(made, expected, rtol=0, atol=2e-7)
    else:
        assert torch.equal(made, expected)


@pytest.mark.parametrize("bits", BITS)
@settings(max_examples=30)
@given(seed=SEEDS, num_groups=st.integers(1, 24), length=st.integers(2, 30))
def test_contiguous_channels(bits: int, seed: int, num_groups: int, length: int) -> None:
    x = random_activation(seed, (2, 5, length))
    assert_same(SliceQuantizer(bits, ContiguousChannels(), num_groups), x)


@pytest.mark.parametrize("bits", BITS)
@settings(max_examples=30)
@given(seed=SEEDS, num_groups=st.integers(1, 24), keys=st.sampled_from([5, 17, 24, 50, 197]))
def test_contiguous_keys(bits: int, seed: int, num_groups: int, keys: int) -> None:
    x = (3 * random_activation(seed, (2, 3, 4, keys))).softmax(-1)
    assert_same(SliceQuantizer(bits, ContiguousKeys(), num_groups), x)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("grouping", "shape"),
    [(TOKENS, (3, 24)), (HEAD_TOKENS, HEADS), (HEAD_CHANNELS, HEADS)],
    ids=["tokens", "head tokens", "head channels"],
)
def test_slices_with_ranges_of_their_own(
    bits: int, grouping: Grouping, shape: tuple[int, ...]
) -> None:
    for seed in range(5):
        assert_same(SliceQuantizer(bits, grouping), random_activation(seed, shape))


@pytest.mark.parametrize("num_groups", [1, 2, 4])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("assignment", Assignment)
def test_channels_pick_the_same_groups(assignment: Assignment, bits: int, num_groups: int) -> None:
    for seed in range(5):
        x = random_activation(seed, INPUT)
        quantizer = fitted(Channels(assignment), x, num_groups, bits)
        assert_same(quantizer, 1.5 * random_activation(seed + 1, INPUT))


@pytest.mark.parametrize("num_groups", [1, 4])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("unit", [False, True])
def test_rows_pick_the_same_groups(unit: bool, bits: int, num_groups: int) -> None:
    x = (3 * random_activation(3, HEADS)).softmax(-1)
    quantizer = fitted(Rows(unit=unit), x, num_groups, bits)
    assert_same(quantizer, (3 * random_activation(4, HEADS)).softmax(-1))


def test_an_image_has_one_range() -> None:
    x = random_activation(0, (2, 3, 4, 4))
    assert_same(fitted(Whole(), x, 1, 8), 2 * x)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    "row",
    [
        [0.0] * 24,
        [-7.5, 7.5, *[0.5] * 22],  # half a step beyond a code at both ends: the upper is clipped
        [1.0, 2.0, *[3.0] * 22],
        [-1.0, -2.0, *[-3.0] * 22],
        [1e-20, -1e-20, *[0.0] * 22],
        [1e30, -1e-30, *[1.0] * 22],
    ],
    ids=["zeros", "symmetric", "positive", "negative", "tiny", "huge"],
)
def test_ranges_at_the_border(row: Sequence[float], bits: int) -> None:
    x = torch.tensor(row).expand(2, 1, 24)
    quantizer = SliceQuantizer(bits, ContiguousChannels(), 2)
    assert torch.allclose(in_onnx(quantizer, x), quantizer(x), rtol=0, atol=1e-12)


def test_no_quantizer_passes_a_value_on() -> None:
    assert quantize_activation(Graph("test"), None, "x", (5, 24)) == "x"


@given(length=st.integers(1, 2000), num_groups=st.integers(1, 40))
def test_widths_give_the_groups_that_torch_has(length: int, num_groups: int) -> None:
    assert -(-length // group_width(length, num_groups)) == contiguous_groups(length, num_groups)


def test_ranges_over_two_axes_are_refused() -> None:
    heads = SliceQuantizer(4, PerSlice("heads", (-2, -1)))
    with pytest.raises(UnsupportedModelError, match=r"over one axis.*heads.*quantize the model"):
        quantize_activation(Graph("test"), heads, "x", (3, 5, 24))
