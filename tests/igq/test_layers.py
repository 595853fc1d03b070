"""What can be quantized, and what a slice of it is."""

import pytest
import torch

from igq import InvalidArgumentError, Layer, Slices, grouped
from igq.layers import check_num_groups, slice_ranges

FC = Layer("fc", Slices.CHANNELS, tokens=3, channels=4, outputs=5, weighted=True)
SOFTMAX = Layer("softmax", Slices.ROWS, tokens=6, channels=3, outputs=2, weighted=False)
QUERIES = Layer("q", Slices.HEAD_TOKENS, tokens=6, channels=2, outputs=3, weighted=False, heads=2)
VALUES = Layer("v", Slices.HEAD_CHANNELS, tokens=6, channels=2, outputs=0, weighted=False, heads=2)
TOKENS = Layer("t", Slices.TOKEN_GROUPS, tokens=3, channels=48, outputs=5, weighted=True)
KEYS = Layer("keys", Slices.KEY_GROUPS, tokens=6, channels=197, outputs=2, weighted=False)
HEAD = Layer("head", Slices.TOKENS, tokens=1, channels=4, outputs=2, weighted=True)


@pytest.mark.parametrize(
    ("slices", "shape", "ranges_shape"),
    [
        (Slices.CHANNELS, (2, 3, 4), (2, 1, 4, 2)),
        (Slices.CHANNELS, (2, 4), (2, 4, 2)),
        (Slices.ROWS, (2, 5, 3, 3), (2, 5, 3, 1, 2)),
        (Slices.UNIT_ROWS, (2, 5, 3, 3), (2, 5, 3, 1, 2)),
        (Slices.TOKENS, (2, 4), (2, 1, 2)),
        (Slices.HEAD_TOKENS, (2, 3, 4, 5), (2, 3, 4, 1, 2)),
        (Slices.HEAD_CHANNELS, (2, 3, 4, 5), (2, 3, 1, 5, 2)),
        (Slices.HEADS, (2, 3, 4, 5), (2, 3, 1, 1, 2)),
        (Slices.WHOLE, (2, 3, 4, 4), (2, 1, 1, 1, 2)),
    ],
    ids=[
        "channels-of-tokens",
        "channels-of-one-token",
        "rows-of-heads",
        "unit-rows-of-heads",
        "one-token",
        "tokens-of-heads",
        "channels-of-heads",
        "heads",
        "whole-image",
    ],
)
def test_a_range_is_reduced_over_all_that_is_not_a_slice(
    slices: Slices, shape: tuple[int, ...], ranges_shape: tuple[int, ...]
) -> None:
    assert slice_ranges(torch.randn(shape), slices).shape == ranges_shape


def test_the_range_of_a_channel_is_its_minimum_and_maximum_over_the_tokens_of_one_image() -> None:
    x = torch.tensor([[[1.0, -5.0], [2.0, 5.0]], [[0.0, 7.0], [-1.0, 8.0]]])
    ranges = slice_ranges(x, Slices.CHANNELS)
    assert ranges.squeeze(1).tolist() == [[[1, 2], [-5, 5]], [[-1, 0], [7, 8]]]


def test_the_range_of_a_row_is_its_minimum_and_maximum_over_the_keys() -> None:
    x = torch.tensor([[[[0.25, 0.75], [1.0, 0.0]]]])
    assert slice_ranges(x, Slices.ROWS).squeeze(-2).tolist() == [[[[0.25, 0.75], [0.0, 1.0]]]]


@pytest.mark.parametrize(
    ("layer", "num_slices"),
    [(FC, 4), (TOKENS, 72), (SOFTMAX, 6), (KEYS, 132), (QUERIES, 6), (VALUES, 4), (HEAD, 1)],
    ids=lambda v: getattr(v, "name", v),
)
def test_the_slices_of_a_layer_are_counted(layer: Layer, num_slices: int) -> None:
    assert layer.num_slices == num_slices


def test_linear_inputs_and_rows_are_grouped_and_nothing_else() -> None:
    assert grouped([FC, TOKENS, HEAD, SOFTMAX, KEYS, QUERIES]) == (FC, TOKENS, SOFTMAX, KEYS)


@pytest.mark.parametrize("num_groups", [(), (0,), (4, -1)], ids=str)
def test_numbers_of_groups_that_no_layer_could_have_are_refused(num_groups: tuple[int]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_num_groups(num_groups)
    assert str(raised.value) == (
        f"`num_groups` must be one or more whole numbers from 1, but got {num_groups}."
    )
