"""Weights: one quantizer for each output channel, at the percentile with the least error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igq import InvalidArgumentError, WeightsError
from igq.arithmetic.affine import affine_parameters, fake_quantize
from igq.arithmetic.weights import quantize_weight


def random_weight(seed: int = 0, shape: tuple[int, ...] = (6, 300)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def squared_error(weight: torch.Tensor, bits: int) -> torch.Tensor:
    return (quantize_weight(weight, bits).dequantize() - weight).square().sum(1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 2, 2)], ids=["linear", "conv"])
def test_codes_have_the_weight_s_shape_and_rows_their_own_scale(shape: tuple[int, ...]) -> None:
    quantized = quantize_weight(random_weight(shape=shape), bits=4)
    assert quantized.codes.shape == quantized.dequantize().shape == shape
    assert quantized.codes.dtype == torch.uint8
    assert quantized.codes.max() <= 15
    assert quantized.scale.shape == quantized.zero_point.shape == (5,)


def test_channels_of_one_input_are_exact() -> None:
    weight = torch.tensor([[0.75], [-3.0], [0.0]])
    torch.testing.assert_close(quantize_weight(weight, 2).dequantize(), weight)


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8))
def test_quantizing_a_dequantized_weight_with_its_own_parameters_changes_nothing(
    seed: int, bits: int
) -> None:
    quantized = quantize_weight(random_weight(seed, (3, 40)), bits)
    scale, zero_point = quantized.scale[:, None], quantized.zero_point[:, None]
    once = quantized.dequantize()
    assert torch.equal(fake_quantize(once, scale, zero_point, bits), once)


@pytest.mark.slow
@given(seed=st.integers(0, 1000))
def test_permuting_output_channels_permutes_the_codes(seed: int) -> None:
    weight = random_weight(seed, (5, 40))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    permuted = quantize_weight(weight[order], 4)
    assert torch.equal(permuted.codes, quantize_weight(weight, 4).codes[order])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_percentile_that_is_tried_is_nearer_for_any_channel(bits: int) -> None:
    weight = random_weight()
    ordered = weight.sort(1).values
    best = squared_error(weight, bits)
    for eps in (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0):
        cut = round(eps / 100 * (weight.shape[1] - 1))
        scale, zero_point = affine_parameters(ordered[:, cut], ordered[:, -1 - cut], bits)
        quantized = fake_quantize(weight, scale[:, None], zero_point[:, None], bits)
        assert (best <= (quantized - weight).square().sum(1) * (1 + 1e-6)).all()


def test_an_outlier_is_clipped_where_that_is_nearer() -> None:
    weight = random_weight(shape=(1, 1000))
    weight[0, 0] = 8.0  # clipping it costs less than 999 coarser steps
    assert quantize_weight(weight, 4).dequantize().max() < 7


def test_more_bits_are_closer() -> None:
    errors = [squared_error(random_weight(), bits).sum() for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


def test_a_channel_of_zeros_stays_zero() -> None:
    assert quantize_weight(torch.zeros(2, 5), 4).dequantize().tolist() == [[0.0] * 5] * 2


def test_a_bf16_weight_is_fitted_in_fp32() -> None:
    weight = random_weight().bfloat16()
    codes = quantize_weight(weight, 8)
    assert codes.scale.dtype == torch.float32
    assert torch.equal(codes.codes, quantize_weight(weight.float(), 8).codes)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(odd: float) -> None:
    weight = random_weight()
    weight[0, 0] = odd
    with pytest.raises(WeightsError, match=r"^weights must be finite, but hold NaN or infinity\.$"):
        quantize_weight(weight, 4)


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"but got weight_bits={bits}"):
        quantize_weight(random_weight(), bits)
