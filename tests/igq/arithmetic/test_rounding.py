"""Rounding for least error of a layer's outputs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from igq import InvalidArgumentError, WeightsError
from igq.arithmetic import rounding
from igq.arithmetic.affine import (
    QuantizedTensor,
    affine_parameters,
    fake_quantize,
    quantize_codes,
)
from igq.arithmetic.rounding import DAMPING, output_error, round_weight
from igq.arithmetic.weights import quantize_weight


def drawn(seed: int, outputs: int = 5, inputs: int = 12, tokens: int = 40) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator)
    x = torch.randn(tokens, inputs, generator=generator) @ mix
    return torch.randn(outputs, inputs, generator=generator), x.T @ x


def damped(gram: Tensor) -> Tensor:
    return gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram))


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), bits=st.integers(2, 8))
def test_no_output_channel_errs_more_than_with_the_nearest_codes(seed: int, bits: int) -> None:
    weight, gram = drawn(seed)
    rounded = output_error(weight, round_weight(weight, gram, bits), damped(gram))
    nearest = output_error(weight, quantize_weight(weight, bits), damped(gram))
    assert (rounded <= nearest * (1 + 1e-5) + 1e-9).all()


def test_outputs_err_much_less_where_inputs_depend_on_each_other() -> None:
    weight, gram = drawn(0, outputs=20, inputs=30, tokens=10)
    rounded = output_error(weight, round_weight(weight, gram, 4), gram).sum()
    nearest = output_error(weight, quantize_weight(weight, 4), gram).sum()
    assert rounded < 0.4 * nearest


def test_each_input_is_rounded_to_suit_the_best_that_the_inputs_after_it_can_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a solution of the normal equations for all inputs left, after each input."""
    weight, gram = drawn(6, outputs=8, inputs=10)
    monkeypatch.setattr(rounding, "SHRINKAGES", ())  # bounds are those of the nearest codes
    nearest, found = quantize_weight(weight, 3), round_weight(weight, gram, 3)
    scale, zero_point = nearest.scale.double()[:, None], nearest.zero_point.double()[:, None]
    products, left = damped(gram.double()), weight.double()
    expected, done = torch.zeros_like(left), torch.zeros_like(left)
    order = gram.diagonal().argsort(descending=True).tolist()
    for place, i in enumerate(order):
        expected[:, i] = quantize_codes(left[:, i : i + 1], scale, zero_point, 3)[:, 0]
        done[:, i] = (expected[:, i] - zero_point[:, 0]) * scale[:, 0] - weight[:, i].double()
        fixed, free = order[: place + 1], order[place + 1 :]
        right = products[free][:, fixed] @ done[:, fixed].T
        left[:, free] = (
            weight[:, free].double() - torch.linalg.solve(products[free][:, free], right).T
        )
    alike = (found.codes == expected).all(1)
    kept = (found.codes == nearest.codes).all(1) & (found.scale == nearest.scale)
    assert (alike | kept).all()
    assert alike.sum() > 4


def test_no_other_scale_suits_the_codes_better() -> None:
    weight, gram = drawn(6, outputs=8, inputs=30)
    found = round_weight(weight, gram, 3)
    fitted = (found.codes != quantize_weight(weight, 3).codes).any(1)
    assert fitted.sum() > 4
    error = output_error(weight, found, damped(gram))[fitted]
    for factor in (0.99, 1.01):
        other = replace(found, scale=found.scale * factor)
        assert (error < output_error(weight, other, damped(gram))[fitted]).all()


def test_a_token_of_great_weight_is_what_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 12, generator=generator) for n in (4, 50))
    token = x[:1]
    gram = x.T @ x
    heavy = gram + 1e4 * token.T @ token

    def error(quantized: QuantizedTensor) -> float:
        return ((quantized.dequantize() - weight) @ token.T).square().sum().item()

    assert error(round_weight(weight, heavy, 3)) < 0.5 * error(round_weight(weight, gram, 3))


def test_errors_are_passed_on_alike_however_many_inputs_go_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight, gram = drawn(6, outputs=8, inputs=30)
    whole = round_weight(weight, gram, 3)
    monkeypatch.setattr(rounding, "INPUTS_TOGETHER", 7)
    parts = round_weight(weight, gram, 3)
    assert torch.equal(parts.codes, whole.codes)
    assert torch.equal(parts.scale, whole.scale)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), bits=st.integers(2, 4))
def test_no_share_of_the_range_would_be_better_where_inputs_are_independent(
    seed: int, bits: int
) -> None:
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(seed)) ** 3
    gram = torch.eye(16)
    found = output_error(weight, round_weight(weight, gram, bits), gram)
    lower, upper = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5):
        scale, zero_point = affine_parameters(lower * share, upper * share, bits)
        tried = (fake_quantize(weight, scale, zero_point, bits) - weight).square().sum(1)
        assert (found <= tried * (1 + 1e-5) + 1e-9).all()


def test_codes_are_codes() -> None:
    weight, gram = drawn(1)
    rounded = round_weight(weight, gram, 3)
    assert rounded.codes.dtype == torch.uint8
    assert rounded.codes.shape == weight.shape
    assert rounded.codes.max() <= 7
    assert rounded.bits == 3
    assert (rounded.scale > 0).all()
    assert torch.equal(rounded.zero_point, rounded.zero_point.round())


def test_the_unit_of_the_gram_matrix_does_not_matter() -> None:
    weight, gram = drawn(2)
    one, other = round_weight(weight, gram, 4), round_weight(weight, gram * 4.0**20, 4)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scale, other.scale)


@pytest.mark.parametrize("gram", [torch.zeros(12, 12), torch.ones(12, 12)], ids=["none", "rank-1"])
def test_inputs_that_are_nothing_or_all_the_same_are_no_obstacle(gram: Tensor) -> None:
    weight, _ = drawn(3)
    assert round_weight(weight, gram, 4).dequantize().isfinite().all()


def test_a_constant_weight_is_represented() -> None:
    weight = torch.zeros(2, 12)
    assert torch.equal(round_weight(weight, drawn(4)[1], 4).dequantize(), weight)


def test_a_channel_of_nothing_is_no_obstacle_to_its_neighbours() -> None:
    weight, gram = drawn(4)
    alone = round_weight(weight, gram, 4)
    beside = round_weight(torch.cat((torch.zeros(1, 12), weight)), gram, 4)
    assert torch.equal(beside.dequantize()[0], torch.zeros(12))
    assert beside.scale[0] == quantize_weight(torch.zeros(1, 12), 4).scale[0]
    assert torch.equal(beside.dequantize()[1:], alone.dequantize())


def test_bad_bits_and_weights_are_refused() -> None:
    weight, gram = drawn(5)
    with pytest.raises(InvalidArgumentError, match="weight_bits"):
        round_weight(weight, gram, 1)
    with pytest.raises(WeightsError, match="finite"):
        round_weight(weight * torch.nan, gram, 4)
