"""Layers, without a scheme: plain structure."""

import pytest

from igq import InvalidArgumentError, Kind, Layer, grouped
from igq.layer import check_num_groups

FC = Layer("fc", Kind.LINEAR, tokens=3, channels=4, outputs=5)
SOFTMAX = Layer("softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2)
QUERIES = Layer("q", Kind.QUERY, tokens=6, channels=2, outputs=3, heads=2)
HEAD = Layer("head", Kind.HEAD, tokens=1, channels=4, outputs=2)
PATCHES = Layer("patches", Kind.EMBEDDING, tokens=3, channels=4, outputs=5, bits=8)


def test_linear_inputs_and_softmax_maps_are_grouped_and_nothing_else() -> None:
    assert grouped([FC, HEAD, SOFTMAX, QUERIES, PATCHES]) == (FC, SOFTMAX)


def test_products_of_activations_have_no_weight() -> None:
    layers = (FC, HEAD, PATCHES, SOFTMAX, QUERIES)
    assert [layer.weighted for layer in layers] == [True, True, True, False, False]


@pytest.mark.parametrize("num_groups", [(), (0,), (4, -1)], ids=str)
def test_numbers_of_groups_that_no_layer_could_have_are_refused(num_groups: tuple[int]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_num_groups(num_groups)
    assert str(raised.value) == (
        f"`num_groups` must be one or more whole numbers from 1, but got {num_groups}."
    )
