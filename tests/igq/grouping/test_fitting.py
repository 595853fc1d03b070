"""Bounds fitted to ranges (Eq. 6)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from igq import Assignment, InvalidArgumentError
from igq.arithmetic.affine import affine_parameters, fake_quantize
from igq.grouping import Channels
from igq.grouping.base import assign
from igq.grouping.fitting import (
    MARGIN,
    _alternate,
    _condense,
    _deviation,
    _spread_out,
    fit_bounds,
)
from tests.igq.drawn import SEEDS, fit_all, fit_one, random_activation, random_ranges


def objective(ranges: Tensor, lower: Tensor, upper: Tensor) -> float:
    """Eq. 6: the sum of each range's distance (Eq. 4) to its nearest bounds."""
    distance = (ranges[..., :1] - lower) ** 2 + (ranges[..., 1:] - upper) ** 2
    return distance.amin(-1).sum().item()


class TestFit:
    def test_well_separated_ranges_are_told_apart_at_their_means(self) -> None:
        ranges = torch.tensor([[[0.0, 1.0], [-8.0, 8.0]], [[0.0, 1.2], [-8.0, 9.0]]])
        fitted = fit_one(ranges, 2)
        bounds = sorted(zip(fitted.lower.tolist(), fitted.upper.tolist(), strict=True))
        assert bounds == [(-8.0, 8.5), (0.0, pytest.approx(1.1))]

    @settings(max_examples=40)
    @given(seed=SEEDS, num_groups=st.integers(2, 8))
    def test_the_objective_never_rises_above_its_start(self, seed: int, num_groups: int) -> None:
        points, weights = _condense(random_ranges(seed).reshape(-1, 2).double())
        start = _spread_out(points, weights, num_groups)
        end = _alternate(points, weights, start)

        def weighted(bounds: Tensor) -> float:
            return (torch.cdist(points, bounds).square().amin(1) * weights[:, 0]).sum().item()

        assert weighted(end) <= weighted(start) * (1 + 1e-9) + 1e-12

    @settings(max_examples=40)
    @given(seed=SEEDS)
    def test_bounds_rest_at_the_mean_of_their_members(self, seed: int) -> None:
        ranges = random_ranges(seed)
        fitted = fit_one(ranges, 3)
        points = ranges.reshape(-1, 2)
        group = assign(points, fitted.groups, Assignment.NEAREST)
        width = (points.amax(0) - points.amin(0)).max().item()
        for i in group.unique():
            mean = points[group == i].mean(0)
            bounds = torch.stack((fitted.lower[i], fitted.upper[i]))
            assert (bounds - mean).abs().max() <= width / 50  # ranges are rounded before fitting

    @settings(max_examples=40)
    @given(seed=SEEDS, num_groups=st.integers(2, 6))
    def test_where_errors_decide_bounds_lie_a_margin_outside_the_mean(
        self, seed: int, num_groups: int
    ) -> None:
        ranges = random_ranges(seed)
        mean = fit_one(ranges, num_groups)
        wider = fit_one(ranges, num_groups, 4, Assignment.LEAST_ERROR)
        lower, upper = wider.lower, wider.upper
        points = ranges.reshape(-1, 2)
        group = assign(points, mean.groups, Assignment.NEAREST)
        width = (points.amax(0) - points.amin(0)).max().item()
        for i in group.unique():
            below, above = points[group == i].std(0, correction=0)
            # ranges are rounded before fitting
            assert (mean.lower[i] - lower[i] - MARGIN * below).abs() <= width / 50
            assert (upper[i] - mean.upper[i] - MARGIN * above).abs() <= width / 50

    def test_one_group_is_as_wide_however_groups_are_picked(self) -> None:
        ranges = random_ranges(0)
        wider = fit_one(ranges, 1, 4, Assignment.LEAST_ERROR)
        assert torch.equal(wider.upper, fit_one(ranges, 1).upper)

    @settings(max_examples=40)
    @given(seed=SEEDS)
    def test_more_groups_lie_nearer_to_the_ranges(self, seed: int) -> None:
        # Alternation ends in a local optimum: four times as many groups win, one more may not.
        ranges = random_ranges(seed)
        fitted = fit_all(ranges, [2, 8, 32])
        far, near, nearest = (objective(ranges, q.lower, q.upper) for q in fitted.values())
        assert far >= near >= nearest

    @pytest.mark.slow
    @given(seed=SEEDS)
    def test_the_order_of_slices_does_not_matter(self, seed: int) -> None:
        ranges = random_ranges(seed)
        one, other = fit_one(ranges, 4), fit_one(ranges.flip(0, 1), 4)
        torch.testing.assert_close(one.lower, other.lower)
        torch.testing.assert_close(one.upper, other.upper)

    def test_a_fit_does_not_depend_on_what_else_is_fitted(self) -> None:
        ranges = random_ranges(0)
        together = fit_all(ranges, [2, 4, 8])[4]
        assert torch.equal(fit_one(ranges, 4).lower, together.lower)
        assert torch.equal(fit_one(ranges, 4).upper, together.upper)

    def test_ranges_that_differ_at_one_end_alone_are_told_apart(self) -> None:
        uppers = torch.tensor([1.0, 2.0, 4.0, 8.0])
        ranges = torch.stack((torch.zeros(4), uppers), -1)[None]
        lower, upper = fit_bounds(ranges, [4])[4]
        assert torch.equal(lower, torch.zeros(4))
        assert torch.equal(upper.sort().values, uppers)

    @pytest.mark.parametrize("assignment", Assignment)
    @pytest.mark.parametrize(("unit", "shift"), [(2.0**-20, 0.0), (1.0, 64.0), (1.0, -64.0)])
    def test_the_unit_and_the_origin_of_ranges_do_not_matter(
        self, unit: float, shift: float, assignment: Assignment
    ) -> None:
        ranges = (random_ranges(0) * 64).round() / 64  # sums are exact
        one = torch.stack(fit_bounds(ranges, [4], assignment)[4])
        other = torch.stack(fit_bounds(ranges * unit + shift, [4], assignment)[4])
        torch.testing.assert_close(other, one * unit + shift, rtol=1e-5, atol=1e-5 * unit)

    @pytest.mark.parametrize("assignment", Assignment)
    def test_ranges_that_all_occur_three_times_are_fitted_alike(
        self, assignment: Assignment
    ) -> None:
        ranges = random_ranges(0)
        once, thrice = (fit_bounds(r, [2, 8], assignment) for r in (ranges, ranges.repeat(3, 1, 1)))
        for g in (2, 8):
            torch.testing.assert_close(torch.stack(thrice[g]), torch.stack(once[g]))

    def test_each_of_the_clusters_far_from_each_other_gets_a_group(self) -> None:
        ends = torch.tensor([[-1.0, 1], [-5, 2], [-3, 9], [-20, 6], [-11, 30], [-40, 41]])
        jitter = torch.linspace(-0.1, 0.1, 5)[:, None, None]
        ranges = ends + jitter
        lower, upper = fit_bounds(ranges, [6])[6]
        assert objective(ranges, lower, upper) < 0.5

    def test_ranges_at_opposite_ends_are_not_merged_when_they_are_rounded(self) -> None:
        step = 1 / 513
        ranges = torch.tensor([[[-2.0, 1.0], [-2.0 + step, step], [-1.0, 0.5]]])
        upper = fit_bounds(ranges, [3])[3][1]
        torch.testing.assert_close(upper.sort().values, torch.tensor([step, 0.5, 1.0]))

    @pytest.mark.parametrize("assignment", Assignment)
    def test_groups_without_members_stay_at_one_of_the_ranges(self, assignment: Assignment) -> None:
        different = {(3.0, 5.0), (7.0, 9.0), (8.0, 13.0)}
        ranges = torch.tensor([sorted(different) * 2])
        lower, upper = fit_bounds(ranges, [6], assignment)[6]
        bounds = list(zip(lower.tolist(), upper.tolist(), strict=True))
        assert len(bounds) == 6
        assert set(bounds) == different

    def test_one_member_alone_is_its_group_s_mean_and_deviates_by_its_distance(self) -> None:
        points, weights = torch.tensor([[0.0, 1.0], [8.0, 9.0]]), torch.tensor([[1.0], [3.0]])
        start = torch.tensor([[0.0, 5.0], [8.0, 7.0]])
        assert _alternate(points, weights, start).tolist() == points.tolist()
        assert _deviation(points, weights, start).tolist() == [[0.0, 4.0], [0.0, 2.0]]

    def test_fitting_leaves_the_global_generator_alone(self) -> None:
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        fit_one(random_ranges(0), 4)
        assert torch.equal(torch.rand(1), expected)

    def test_one_group_is_the_layer_wise_quantizer_with_the_global_minimum_and_maximum(
        self,
    ) -> None:
        ranges = random_ranges(0)
        fitted = fit_one(ranges, 1)
        assert fitted.lower.item() == ranges[..., 0].min().item()
        assert fitted.upper.item() == ranges[..., 1].max().item()

        x = random_activation(1)
        plain = fake_quantize(x, *affine_parameters(ranges.min(), ranges.max(), 4), 4)
        assert torch.equal(fitted(x), plain)

    def test_as_many_groups_as_slices_of_one_image_are_one_quantizer_for_each_slice(self) -> None:
        widths = torch.arange(1.0, 7.0)
        x = torch.linspace(-1, 2, 9)[None, :, None] * widths
        fitted = fit_one(Channels().ranges(x).reshape(1, -1, 2), len(widths))
        each = torch.stack(
            [fake_quantize(c, *affine_parameters(c.min(), c.max(), 4), 4) for c in x[0].unbind(-1)],
            dim=-1,
        )
        assert fitted.assign(x).unique().numel() == len(widths)
        torch.testing.assert_close(fitted(x)[0], each)

    @pytest.mark.parametrize("num_groups", [1, 4])
    def test_more_bits_are_closer(self, num_groups: int) -> None:
        x = random_activation(0, (4, 5, 12))
        ranges = Channels().ranges(x).reshape(4, -1, 2)
        errors = [(fit_one(ranges, num_groups, bits)(x) - x).square().sum() for bits in (2, 4, 8)]
        assert errors[0] > errors[1] > errors[2]

    def test_groups_bring_the_quantized_values_closer(self) -> None:
        x = random_activation(0, (4, 5, 12))
        ranges = Channels().ranges(x).reshape(4, -1, 2)
        errors = [(fit_one(ranges, g)(x) - x).abs().mean() for g in (1, 4, 12)]
        assert errors[0] > errors[1] > errors[2]

    @pytest.mark.parametrize("value", [0.0, 3.0], ids=["all-zero", "constant"])
    def test_equal_ranges_fit_any_number_of_groups(self, value: float) -> None:
        fitted = fit_one(torch.full((2, 3, 2), value), 4)
        x = torch.full((1, 2, 3), value)
        assert fitted.num_groups == 4
        torch.testing.assert_close(fitted(x), x)

    def test_more_groups_than_slices_are_allowed(self) -> None:
        ranges = random_ranges(0, images=1, slices=3)
        fitted = fit_one(ranges, 8)
        assert objective(ranges, fitted.lower, fitted.upper) == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
    def test_ranges_that_are_not_finite_are_refused(self, odd: float) -> None:
        ranges = random_ranges(0)
        ranges[0, 0, 1] = odd
        with pytest.raises(InvalidArgumentError, match="`ranges` must be finite, but hold NaN"):
            fit_one(ranges, 2)

    def test_no_ranges_are_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="must hold at least 1 range, but hold 0"):
            fit_one(torch.zeros(0, 12, 2), 2)

    @pytest.mark.parametrize("num_groups", [[], [0], [2, -4]], ids=str)
    def test_numbers_of_groups_out_of_range_are_refused(self, num_groups: list[int]) -> None:
        with pytest.raises(InvalidArgumentError, match="`num_groups` must be one or more whole"):
            fit_all(random_ranges(0), num_groups)

    @pytest.mark.parametrize("bits", [1, 9])
    def test_bits_out_of_range_are_refused(self, bits: int) -> None:
        with pytest.raises(InvalidArgumentError, match=f"between 2 and 8, but got bits={bits}"):
            fit_one(random_ranges(0), 2, bits)
