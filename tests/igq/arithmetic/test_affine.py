"""Uniform affine quantization of given bounds (Eq. 1-3)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igq import InvalidArgumentError
from igq.arithmetic.affine import (
    MAX_BITS,
    MIN_BITS,
    QuantizedTensor,
    affine_parameters,
    check_bits,
    fake_quantize,
    quantize_codes,
)

BITS = st.integers(MIN_BITS, MAX_BITS)
NUMBER = st.floats(-1e4, 1e4, width=32)
BOUNDS = st.tuples(NUMBER, NUMBER).map(sorted)


def parameters(lower: float, upper: float, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    return affine_parameters(torch.tensor(lower), torch.tensor(upper), bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scale_and_zero_point_are_those_of_equations_1_and_2(bits: int) -> None:
    scale, zero_point = parameters(-1.0, 3.0, bits)
    assert scale.item() == pytest.approx(4 / (2**bits - 1))
    assert zero_point.item() == round((2**bits - 1) / 4)


@pytest.mark.parametrize(
    ("value", "code", "stands_for"),
    [(-9.0, 0, -1.0), (-1.0, 0, -1.0), (0.0, 1, 0.0), (0.4, 1, 0.0), (1.6, 3, 2.0), (9.0, 3, 2.0)],
)
def test_codes_and_values_of_bounds_minus_1_and_2_at_2_bits(
    value: float, code: int, stands_for: float
) -> None:
    scale, zero_point = parameters(-1.0, 2.0, bits=2)
    x = torch.tensor(value)
    assert quantize_codes(x, scale, zero_point, bits=2).item() == code
    assert fake_quantize(x, scale, zero_point, bits=2).item() == stands_for


@given(values=st.lists(NUMBER, min_size=1), bounds=BOUNDS, bits=BITS)
def test_quantizing_twice_is_quantizing_once(
    values: list[float], bounds: list[float], bits: int
) -> None:
    scale, zero_point = parameters(*bounds, bits)
    once = fake_quantize(torch.tensor(values), scale, zero_point, bits)
    assert torch.equal(fake_quantize(once, scale, zero_point, bits), once)


@given(bounds=BOUNDS, share=st.floats(0, 1, width=32), bits=BITS)
def test_a_value_within_the_bounds_moves_by_at_most_one_step(
    bounds: list[float], share: float, bits: int
) -> None:
    lower, upper = bounds
    scale, zero_point = parameters(lower, upper, bits)
    x = torch.tensor(lower + share * (upper - lower)).clamp(lower, upper)
    error = (fake_quantize(x, scale, zero_point, bits) - x).abs().item()
    assert error <= scale.item() * (1 + 1e-3)


@given(bounds=BOUNDS, bits=BITS)
def test_zero_is_kept(bounds: list[float], bits: int) -> None:
    scale, zero_point = parameters(*bounds, bits)
    assert fake_quantize(torch.tensor(0.0), scale, zero_point, bits).item() == 0


@given(values=st.lists(NUMBER, min_size=1), bounds=BOUNDS, bits=BITS)
def test_codes_fit_in_the_bits(values: list[float], bounds: list[float], bits: int) -> None:
    codes = quantize_codes(torch.tensor(values), *parameters(*bounds, bits), bits)
    assert torch.equal(codes, codes.round())
    assert codes.min() >= 0
    assert codes.max() <= 2**bits - 1


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (-2.0, -0.5)], ids=["positive", "negative"])
def test_bounds_that_leave_0_out_are_widened_to_hold_it(bounds: tuple[float, float]) -> None:
    widened = (min(bounds[0], 0.0), max(bounds[1], 0.0))
    assert parameters(*bounds, bits=4) == parameters(*widened, bits=4)


def test_a_constant_0_stays_finite() -> None:
    scale, zero_point = parameters(0.0, 0.0, bits=4)
    assert fake_quantize(torch.zeros(3), scale, zero_point, bits=4).tolist() == [0, 0, 0]


def test_the_error_halves_with_each_bit() -> None:
    x = torch.linspace(-1, 3, 1001)
    errors = [
        (fake_quantize(x, *parameters(-1.0, 3.0, bits), bits) - x).abs().max().item()
        for bits in range(MIN_BITS, MAX_BITS + 1)
    ]
    steps = [4 / (2**bits - 1) for bits in range(MIN_BITS, MAX_BITS + 1)]
    # Half a step within, and up to half a step more at an end, where the zero point is rounded.
    assert all(e <= s * 1.001 for e, s in zip(errors, steps, strict=True))
    assert errors == sorted(errors, reverse=True)


def test_a_quantized_tensor_has_parameters_of_its_own_in_each_row() -> None:
    weight = QuantizedTensor(
        codes=torch.tensor([[[0, 3]], [[1, 2]]], dtype=torch.uint8),
        scale=torch.tensor([0.5, 2.0]),
        zero_point=torch.tensor([1.0, 2.0]),
        bits=2,
    )
    assert weight.dequantize().tolist() == [[[-0.5, 1.0]], [[-2.0, 0.0]]]


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 32])
def test_bits_that_cannot_be_used_are_named(bits: int) -> None:
    rule = f"^`weight_bits` must be between 2 and 8, but got weight_bits={bits}.$"
    with pytest.raises(InvalidArgumentError, match=rule):
        check_bits(bits, "weight_bits")


@pytest.mark.parametrize("bits", range(MIN_BITS, MAX_BITS + 1))
def test_bits_that_can_be_used_pass(bits: int) -> None:
    assert check_bits(bits) == bits
