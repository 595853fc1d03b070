"""The library's layers are torch's: codes bit for bit, outputs but for rounding."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igq.arithmetic.weights import quantize_weight
from igq.grouping import TOKENS, GroupQuantizer, SliceQuantizer
from igq.grouping.contiguous import ContiguousChannels, fake_quantize_contiguous
from igq.runtime import operators, reference
from igq.runtime.library import checked, library
from igq.runtime.panels import LinearLayer, linear_panel
from tests.igq.runtime.layers import draw_attention, draw_layer, normalised

SEEDS = [range(first, first + 15) for first in range(0, 150, 15)]
"""150 layers, 15 in a test."""

each_seed = pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"from-{seeds.start}")


def quantized_by(target: str, panel: Tensor, x: Tensor) -> Tensor:
    y, loaded = torch.empty_like(x), library()
    assert loaded is not None
    size = (panel.data_ptr(), panel.numel())
    checked(loaded.igq_quantize(target.encode(), *size, x.data_ptr(), y.data_ptr(), *x.shape))
    return y


def map_quantized_by(target: str, panel: Tensor, softmax: Tensor) -> Tensor:
    y, loaded = torch.empty_like(softmax), library()
    assert loaded is not None
    keys = softmax.shape[-1]
    size = (panel.data_ptr(), panel.numel())
    rows = softmax.numel() // keys
    checked(
        loaded.igq_quantize_map(
            target.encode(), *size, softmax.data_ptr(), y.data_ptr(), rows, keys
        )
    )
    return y


class TestLinear:
    @each_seed
    def test_its_input_s_codes_are_torch_s(self, target: str, seeds: range) -> None:
        for seed in seeds:
            drawn = draw_layer(seed)
            values = quantized_by(target, linear_panel(drawn.layer), drawn.x)
            assert torch.equal(values, drawn.layer.quantizer(drawn.seen)), seed

    @each_seed
    def test_its_outputs_are_those_of_exact_sums(self, target: str, seeds: range) -> None:
        for seed in seeds:
            drawn = draw_layer(seed)
            layer, panel = drawn.layer, linear_panel(drawn.layer)
            outputs = len(layer.weight.codes)
            y = operators.linear(drawn.x, panel, outputs, drawn.residual, target)
            bias = None if layer.bias is None else layer.bias.double()
            weight = layer.weight.dequantize().double()
            exact = F.linear(layer.quantizer(drawn.seen).double(), weight, bias)
            exact = F.gelu(exact) if layer.gelu else exact
            exact = exact if drawn.residual is None else exact + drawn.residual
            assert (y - exact).abs().max() <= 3e-6 * exact.abs().max(), seed

    def test_its_input_is_normalised(self, target: str) -> None:
        x = torch.randn(2, 17, 24, generator=torch.Generator().manual_seed(0))
        weight = quantize_weight(torch.randn(8, 24), 8)
        layer = LinearLayer(weight, SliceQuantizer(8, ContiguousChannels(), 3))
        plain, norm = linear_panel(layer), normalised(24)
        fused = linear_panel(replace(layer, norm=norm))
        y = operators.linear(x, fused, 8, target=target)
        expected = operators.linear(norm(x), plain, 8, target=target)
        torch.testing.assert_close(y, expected, atol=0.02, rtol=0.01)

    def test_many_rows_and_threads_change_nothing(self, target: str) -> None:
        drawn = draw_layer(3)
        panel, outputs = linear_panel(drawn.layer), len(drawn.layer.weight.codes)
        x = drawn.x[:1].repeat(1, 40, 1)
        threads = torch.get_num_threads()
        alone = operators.linear(x, panel, outputs, target=target)
        try:
            torch.set_num_threads(3)
            together = operators.linear(x, panel, outputs, target=target)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(alone, together)

    def test_what_is_not_finite_shows(self, target: str) -> None:
        layer = LinearLayer(quantize_weight(torch.eye(4), 8), SliceQuantizer(8, TOKENS))
        x = torch.ones(3, 4)
        x[1, 2], x[2, 0] = torch.nan, torch.inf
        y = operators.linear(x, linear_panel(layer), 4, target=target)
        assert y[0].isfinite().all()
        assert y[1:].isnan().all()

    def test_no_images_have_no_outputs(self, target: str) -> None:
        layer = LinearLayer(quantize_weight(torch.eye(4), 8), SliceQuantizer(8, TOKENS))
        assert (
            operators.linear(torch.ones(0, 4), linear_panel(layer), 4, target=target).numel() == 0
        )


class TestAttention:
    @each_seed
    def test_the_codes_of_its_map_are_torch_s(self, target: str, seeds: range) -> None:
        for seed in seeds:
            drawn = draw_attention(seed)
            values = map_quantized_by(target, drawn.panel, drawn.softmax)
            quantizer = drawn.quantizer
            if isinstance(quantizer, GroupQuantizer):
                quantizer = replace(quantizer, grouping=replace(quantizer.grouping, unit=False))
                expected = quantizer(drawn.softmax)
            else:
                expected = fake_quantize_contiguous(
                    drawn.softmax, quantizer.num_groups, quantizer.bits
                )
            assert torch.equal(values, expected), seed

    @each_seed
    def test_its_outputs_are_torch_s(self, target: str, seeds: range) -> None:
        for seed in seeds:
            drawn = draw_attention(seed)
            y = operators.self_attention(drawn.qkv, drawn.panel, target)
            expected = reference.self_attention(drawn.qkv, drawn.panel)
            apart = (y - expected).abs() / expected.abs().max()
            # a softmax value on the border of two codes takes the other one
            assert (apart > 1e-5).float().mean() < 0.05, seed


class TestReference:
    @each_seed
    def test_it_reads_the_panel_of_a_layer(self, seeds: range) -> None:
        for seed in seeds:
            drawn = draw_layer(seed)
            layer, weight = drawn.layer, drawn.layer.weight.dequantize()
            expected = F.linear(layer.quantizer(drawn.seen), weight, layer.bias)
            expected = F.gelu(expected) if layer.gelu else expected
            expected = expected if drawn.residual is None else expected + drawn.residual
            made = reference.linear(drawn.x, linear_panel(layer), len(weight), drawn.residual)
            torch.testing.assert_close(made, expected, atol=0, rtol=0)

    def test_it_normalises(self) -> None:
        x, norm = torch.randn(2, 5, 24), normalised(24)
        layer = LinearLayer(
            quantize_weight(torch.randn(8, 24), 8), SliceQuantizer(8, ContiguousChannels(), 3)
        )
        expected = reference.linear(norm(x), linear_panel(layer), 8)
        made = reference.linear(x, linear_panel(replace(layer, norm=norm)), 8)
        torch.testing.assert_close(made, expected)
