"""The size of a model: codes, scales and parameters that are not quantized."""

from dataclasses import replace

import pytest
from torch import nn

import igq
from igq import Kind, Layer, Options, Tie
from igq.costs import size_table
from igq.costs.size import other_bytes, size_with, weight_bytes

FC = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
SOFTMAX = Layer("softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2)
OPTIONS = Options((3, 4, 8), (4, 6), (2, 4))


@pytest.mark.parametrize(("bits", "size"), [(2, 4), (3, 6), (4, 8), (8, 15)])
def test_codes_are_packed_and_the_last_byte_is_filled_up(bits: int, size: int) -> None:
    assert weight_bytes(FC, bits) == size


def test_a_softmax_map_has_no_weight() -> None:
    assert weight_bytes(SOFTMAX, 8) == 0


def test_all_else_are_scales_zero_points_and_parameters_that_are_not_quantized() -> None:
    assert other_bytes([FC, SOFTMAX], parameters=15 + 7) == 4 * 7 + 4 * 2 * 5


@pytest.mark.parametrize("tie", [None, *Tie])
@pytest.mark.parametrize("bits", OPTIONS.weight_bits)
def test_a_setting_s_size_is_that_of_its_weight_bits_alone(
    vit: nn.Module, tie: Tie | None, bits: int
) -> None:
    listed, parameters = igq.layers(vit), sum(p.numel() for p in vit.parameters())
    table = size_table(listed, OPTIONS, parameters, tie)
    settings = {
        name: next(s for s in known if s.weight_bits in (bits, None))
        for name, known in table.layers.items()
    }
    codes = sum(
        -(-layer.channels * layer.outputs * bits // 8) for layer in listed if layer.weighted
    )
    assert table.of(settings) == codes + other_bytes(listed, parameters)
    assert table.of(settings) == size_with(listed, parameters, bits)
    assert table.varies


def test_where_weight_bits_are_not_searched_all_models_are_as_large(vit: nn.Module) -> None:
    listed, parameters = igq.layers(vit), sum(p.numel() for p in vit.parameters())
    for options in (replace(OPTIONS, weight_bits=(4,)), Options((4,), (4,), (1, 2))):
        table = size_table(listed, options, parameters)
        assert not table.varies
        assert table.minimum == size_with(listed, parameters, 4)
