"""Instance-aware grouping (Eq. 4-8)."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from igq import Assignment, GroupQuantizer, InvalidArgumentError, Slices, fit_groups
from igq.affine import affine_parameters, fake_quantize
from igq.fitting import MARGIN, _alternate, _condense, _spread_out
from igq.grouping import Groups, SliceQuantizer, assign, expected_error
from igq.layers import slice_ranges
from igq.runs import fake_quantize_runs


def random_ranges(seed: int, images: int = 4, slices: int = 12) -> Tensor:
    """Ranges of slices whose widths differ by orders of magnitude, as in a ViT."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(images, slices, 2, generator=generator)
    widths = torch.randn(slices, 1, generator=generator).exp()
    return (ends * widths).sort(dim=-1).values


def random_activation(seed: int, shape: tuple[int, ...] = (2, 5, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(shape, generator=generator) * torch.randn(shape[-1:], generator=generator).exp()
    )


def objective(ranges: Tensor, lower: Tensor, upper: Tensor) -> float:
    """Eq. 6: the sum of each range's distance (Eq. 4) to its nearest bounds."""
    distance = (ranges[..., :1] - lower) ** 2 + (ranges[..., 1:] - upper) ** 2
    return distance.amin(-1).sum().item()


def fit_one(ranges: Tensor, num_groups: int, bits: int = 4) -> GroupQuantizer:
    return fit_groups(ranges, [num_groups], bits, Slices.CHANNELS)[num_groups]


SEEDS = st.integers(0, 10_000)


class TestAssignment:
    def test_each_range_picks_the_bounds_nearest_in_the_plane_of_minimum_and_maximum(self) -> None:
        lower, upper = torch.tensor([-1.0, -1.0, 0.0]), torch.tensor([1.0, 5.0, 1.0])
        groups = GroupQuantizer(lower, upper, 4, Slices.CHANNELS).groups
        ranges = torch.tensor([[-1.0, 1.2], [-0.9, 4.0], [-0.1, 1.0], [-9.0, 9.0]])
        assert assign(ranges, groups, Assignment.NEAREST).tolist() == [0, 1, 2, 1]

    @pytest.mark.parametrize("assignment", Assignment)
    @given(seed=SEEDS, num_groups=st.integers(1, 6))
    def test_permuting_slices_permutes_the_assignment(
        self, assignment: Assignment, seed: int, num_groups: int
    ) -> None:
        x = random_activation(seed)
        quantizer = replace(fit_one(random_ranges(seed), num_groups), assignment=assignment)
        order = torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(seed))
        assert torch.equal(quantizer.assign(x[..., order]), quantizer.assign(x)[..., order])
        assert torch.equal(quantizer(x[..., order]), quantizer(x)[..., order])

    @given(seed=SEEDS)
    def test_no_image_influences_another(self, seed: int) -> None:
        x = random_activation(seed, (3, 5, 12))
        quantizer = fit_one(random_ranges(seed), 3)
        alone = torch.cat([quantizer(image[None]) for image in x])
        assert torch.equal(quantizer(x), alone)

    def test_a_slice_picks_another_group_in_another_image(self) -> None:
        quantizer = GroupQuantizer(
            torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0]), 4, Slices.CHANNELS
        )
        x = torch.tensor([[[-1.0, -8.0], [1.0, 8.0]], [[-8.0, -1.0], [8.0, 1.0]]])
        assert quantizer.assign(x).squeeze(1).tolist() == [[0, 1], [1, 0]]

    def test_a_slice_is_quantized_with_the_bounds_of_its_group(self) -> None:
        quantizer = GroupQuantizer(
            torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0]), 4, Slices.CHANNELS
        )
        x = random_activation(0)
        group = quantizer.assign(x).expand_as(x)
        for i, bounds in enumerate([(-1.0, 1.0), (-9.0, 9.0)]):
            plain = fake_quantize(x, *affine_parameters(*map(torch.tensor, bounds), 4), 4)
            assert (group == i).any()
            assert torch.equal(quantizer(x)[group == i], plain[group == i])

    def test_rows_of_a_softmax_map_are_slices_too(self) -> None:
        x = random_activation(0, (2, 3, 4, 4)).softmax(-1)
        ranges = slice_ranges(x, Slices.ROWS).reshape(2, -1, 2)
        quantizer = fit_groups(ranges, [3], 4, Slices.ROWS)[3]
        assert quantizer.assign(x).shape == (2, 3, 4, 1)
        assert quantizer(x).shape == x.shape

    @pytest.mark.parametrize("groups", [1, 3])
    def test_what_a_row_loses_of_its_sum_is_spread_over_its_keys(self, groups: int) -> None:
        x = random_activation(0, (2, 3, 4, 6)).softmax(-1)
        upper = torch.linspace(0.2, 1, groups)
        rows, unit_rows = (
            GroupQuantizer(torch.zeros(groups), upper, 3, slices)(x)
            for slices in (Slices.ROWS, Slices.UNIT_ROWS)
        )
        spread = unit_rows - rows
        assert (rows.sum(-1) - 1).abs().max() > 0.05
        torch.testing.assert_close(unit_rows.sum(-1), torch.ones(2, 3, 4))
        torch.testing.assert_close(spread, spread[..., :1].expand_as(spread), atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("groups", [1, 4])
    def test_so_it_is_where_keys_are_in_groups(self, groups: int) -> None:
        x = random_activation(0, (2, 3, 4, 29)).softmax(-1)
        parts = fake_quantize_runs(x, groups, 3)
        kept = SliceQuantizer(3, Slices.KEY_GROUPS, groups)(x)
        torch.testing.assert_close(kept, parts + (1 - parts.sum(-1, keepdim=True)) / 29)


class TestLeastError:
    """Groups picked by the error to expect of a slice's values."""

    @staticmethod
    def groups(*bounds: tuple[float, float], bits: int = 4) -> Groups:
        lower, upper = torch.tensor(bounds).unbind(-1)
        return GroupQuantizer(lower, upper, bits, Slices.CHANNELS).groups

    @pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-0.8, 0.9), (-0.6, 1.5), (-2.0, 3.0)])
    @pytest.mark.parametrize("bits", [3, 4, 6])
    def test_it_is_the_mean_squared_error_of_values_spread_like_a_triangle(
        self, bounds: tuple[float, float], bits: int
    ) -> None:
        drawn = torch.rand(2, 1_000_000, generator=torch.Generator().manual_seed(0))
        values = drawn.sum(0) - 1  # from -1 to 1, most of them near 0
        groups = self.groups(bounds, bits=bits)
        real = (fake_quantize(values, groups.scale, groups.zero_point, bits) - values).square()
        expected = expected_error(torch.tensor([[-1.0, 1.0]]), groups)
        assert expected.item() == pytest.approx(real.mean().item(), rel=0.2)

    def test_a_few_clipped_values_may_cost_less_than_a_wider_step_for_all(self) -> None:
        ranges, groups = torch.tensor([[-1.0, 1.0]]), self.groups((-0.9, 0.9), (-1.05, 1.05))
        assert assign(ranges, groups, Assignment.NEAREST).tolist() == [1]
        assert assign(ranges, groups, Assignment.LEAST_ERROR).tolist() == [0]

    def test_more_bits_clip_less(self) -> None:
        bounds, ranges = ((-0.9, 0.9), (-1.05, 1.05)), torch.tensor([[-1.0, 1.0]])
        picked = [
            assign(ranges, self.groups(*bounds, bits=bits), Assignment.LEAST_ERROR).item()
            for bits in (3, 4, 6, 8)
        ]
        assert picked == [0, 0, 0, 1]

    def test_bounds_that_leave_0_out_are_taken_as_they_quantize(self) -> None:
        ranges = torch.tensor([[0.0, 1.0]])
        narrow, wide = self.groups((0.9, 1.0)), self.groups((0.0, 1.0))
        assert torch.equal(expected_error(ranges, narrow), expected_error(ranges, wide))

    @pytest.mark.parametrize("value", [0.0, 1e-20, 3.0, 1e15])
    def test_slices_of_one_value_and_groups_that_are_not_there_give_no_nan(
        self, value: float
    ) -> None:
        groups = Groups(*(torch.tensor([t, torch.inf]) for t in (-1.0, 1.0, 0.1, 7.0)))
        error = expected_error(torch.tensor([[value, value]]), groups)
        assert not error.isnan().any()
        assert assign(torch.tensor([[value, value]]), groups, Assignment.LEAST_ERROR).item() == 0


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
        wider = fit_groups(ranges, [num_groups], 4, Slices.CHANNELS, Assignment.LEAST_ERROR)
        lower, upper = wider[num_groups].lower, wider[num_groups].upper
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
        wider = fit_groups(ranges, [1], 4, Slices.CHANNELS, Assignment.LEAST_ERROR)[1]
        assert torch.equal(wider.upper, fit_one(ranges, 1).upper)

    @settings(max_examples=40)
    @given(seed=SEEDS)
    def test_more_groups_lie_nearer_to_the_ranges(self, seed: int) -> None:
        # Alternation ends in a local optimum: four times as many groups win, one more may not.
        ranges = random_ranges(seed)
        fitted = fit_groups(ranges, [2, 8, 32], 4, Slices.CHANNELS)
        far, near, nearest = (objective(ranges, q.lower, q.upper) for q in fitted.values())
        assert far >= near >= nearest

    @given(seed=SEEDS)
    def test_the_order_of_slices_does_not_matter(self, seed: int) -> None:
        ranges = random_ranges(seed)
        one, other = fit_one(ranges, 4), fit_one(ranges.flip(0, 1), 4)
        torch.testing.assert_close(one.lower, other.lower)
        torch.testing.assert_close(one.upper, other.upper)

    def test_a_fit_does_not_depend_on_what_else_is_fitted(self) -> None:
        ranges = random_ranges(0)
        together = fit_groups(ranges, [2, 4, 8], 4, Slices.CHANNELS)[4]
        assert torch.equal(fit_one(ranges, 4).lower, together.lower)
        assert torch.equal(fit_one(ranges, 4).upper, together.upper)

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
        fitted = fit_one(slice_ranges(x, Slices.CHANNELS).reshape(1, -1, 2), len(widths))
        each = torch.stack(
            [fake_quantize(c, *affine_parameters(c.min(), c.max(), 4), 4) for c in x[0].unbind(-1)],
            dim=-1,
        )
        assert fitted.assign(x).unique().numel() == len(widths)
        torch.testing.assert_close(fitted(x)[0], each)

    @pytest.mark.parametrize("num_groups", [1, 4])
    def test_more_bits_are_closer(self, num_groups: int) -> None:
        x = random_activation(0, (4, 5, 12))
        ranges = slice_ranges(x, Slices.CHANNELS).reshape(4, -1, 2)
        errors = [(fit_one(ranges, num_groups, bits)(x) - x).square().sum() for bits in (2, 4, 8)]
        assert errors[0] > errors[1] > errors[2]

    def test_groups_bring_the_quantized_values_closer(self) -> None:
        x = random_activation(0, (4, 5, 12))
        ranges = slice_ranges(x, Slices.CHANNELS).reshape(4, -1, 2)
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
            fit_groups(random_ranges(0), num_groups, 4, Slices.CHANNELS)

    @pytest.mark.parametrize("bits", [1, 9])
    def test_bits_out_of_range_are_refused(self, bits: int) -> None:
        with pytest.raises(InvalidArgumentError, match=f"between 2 and 8, but got bits={bits}"):
            fit_one(random_ranges(0), 2, bits)


class TestSliceQuantizer:
    def test_each_slice_has_its_own_range_as_bounds(self) -> None:
        x = random_activation(0, (2, 3, 4, 5))
        quantized = SliceQuantizer(4, Slices.HEADS)(x)
        for image in range(2):
            for head in range(3):
                one = x[image, head]
                plain = fake_quantize(one, *affine_parameters(one.min(), one.max(), 4), 4)
                assert torch.equal(quantized[image, head], plain)

    def test_it_is_what_as_many_groups_as_ranges_come_to(self) -> None:
        x = torch.linspace(-1, 2, 9)[None, :, None] * torch.arange(1.0, 7.0)
        fitted = fit_one(slice_ranges(x, Slices.CHANNELS).reshape(1, -1, 2), 6)
        torch.testing.assert_close(fitted(x), SliceQuantizer(4, Slices.CHANNELS)(x))


def test_cpu_and_gpu_agree(device: torch.device) -> None:
    x = random_activation(0)
    quantizer = fit_one(random_ranges(0), 4)
    there = GroupQuantizer(
        quantizer.lower.to(device), quantizer.upper.to(device), 4, Slices.CHANNELS
    )
    torch.testing.assert_close(there(x.to(device)).cpu(), quantizer(x))
