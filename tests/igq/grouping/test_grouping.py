"""Instance-aware grouping (Eq. 4-8)."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igq import Assignment, GroupQuantizer, Kind, Layer, Scheme
from igq.arithmetic.affine import affine_parameters, fake_quantize
from igq.formats.native.compat import HEADS
from igq.grouping import (
    HEAD_CHANNELS,
    HEAD_TOKENS,
    TOKENS,
    Channels,
    ContiguousKeys,
    Grouping,
    Groups,
    Rows,
    SliceQuantizer,
    Whole,
    grouping_of,
    tagged,
)
from igq.grouping.base import assign, expected_error
from igq.grouping.contiguous import fake_quantize_contiguous
from igq.scheme import InputMethod, SoftmaxMethod
from tests.igq.drawn import SEEDS, fit_one, random_activation, random_ranges


class TestAssignment:
    def test_each_range_picks_the_bounds_nearest_in_the_plane_of_minimum_and_maximum(self) -> None:
        lower, upper = torch.tensor([-1.0, -1.0, 0.0]), torch.tensor([1.0, 5.0, 1.0])
        groups = GroupQuantizer(lower, upper, 4, Channels()).groups
        ranges = torch.tensor([[-1.0, 1.2], [-0.9, 4.0], [-0.1, 1.0], [-9.0, 9.0]])
        assert assign(ranges, groups, Assignment.NEAREST).tolist() == [0, 1, 2, 1]

    @pytest.mark.slow
    @pytest.mark.parametrize("assignment", Assignment)
    @given(seed=SEEDS, num_groups=st.integers(1, 6))
    def test_permuting_slices_permutes_the_assignment(
        self, assignment: Assignment, seed: int, num_groups: int
    ) -> None:
        x = random_activation(seed)
        quantizer = replace(fit_one(random_ranges(seed), num_groups), grouping=Channels(assignment))
        order = torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(seed))
        assert torch.equal(quantizer.assign(x[..., order]), quantizer.assign(x)[..., order])
        assert torch.equal(quantizer(x[..., order]), quantizer(x)[..., order])

    @pytest.mark.slow
    @given(seed=SEEDS)
    def test_no_image_influences_another(self, seed: int) -> None:
        x = random_activation(seed, (3, 5, 12))
        quantizer = fit_one(random_ranges(seed), 3)
        alone = torch.cat([quantizer(image[None]) for image in x])
        assert torch.equal(quantizer(x), alone)

    def test_a_slice_picks_another_group_in_another_image(self) -> None:
        quantizer = GroupQuantizer(
            torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0]), 4, Channels()
        )
        x = torch.tensor([[[-1.0, -8.0], [1.0, 8.0]], [[-8.0, -1.0], [8.0, 1.0]]])
        assert quantizer.assign(x).squeeze(1).tolist() == [[0, 1], [1, 0]]

    def test_a_slice_is_quantized_with_the_bounds_of_its_group(self) -> None:
        quantizer = GroupQuantizer(
            torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0]), 4, Channels()
        )
        x = random_activation(0)
        group = quantizer.assign(x).expand_as(x)
        for i, bounds in enumerate([(-1.0, 1.0), (-9.0, 9.0)]):
            plain = fake_quantize(x, *affine_parameters(*map(torch.tensor, bounds), 4), 4)
            assert (group == i).any()
            assert torch.equal(quantizer(x)[group == i], plain[group == i])

    def test_rows_of_a_softmax_map_are_slices_too(self) -> None:
        x = random_activation(0, (2, 3, 4, 4)).softmax(-1)
        ranges = Rows().ranges(x).reshape(2, -1, 2)
        quantizer = Rows().fit(ranges, [3], 4)[3]
        assert isinstance(quantizer, GroupQuantizer)
        assert quantizer.assign(x).shape == (2, 3, 4, 1)
        assert quantizer(x).shape == x.shape

    @pytest.mark.parametrize("groups", [1, 3])
    def test_what_a_row_loses_of_its_sum_is_spread_over_its_keys(self, groups: int) -> None:
        x = random_activation(0, (2, 3, 4, 6)).softmax(-1)
        upper = torch.linspace(0.2, 1, groups)
        rows, unit_rows = (
            GroupQuantizer(torch.zeros(groups), upper, 3, Rows(unit=unit))(x)
            for unit in (False, True)
        )
        spread = unit_rows - rows
        assert (rows.sum(-1) - 1).abs().max() > 0.05
        torch.testing.assert_close(unit_rows.sum(-1), torch.ones(2, 3, 4))
        torch.testing.assert_close(spread, spread[..., :1].expand_as(spread), atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("groups", [1, 4])
    def test_so_it_is_where_keys_are_in_groups(self, groups: int) -> None:
        x = random_activation(0, (2, 3, 4, 29)).softmax(-1)
        parts = fake_quantize_contiguous(x, groups, 3)
        kept = SliceQuantizer(3, ContiguousKeys(), groups)(x)
        torch.testing.assert_close(kept, parts + (1 - parts.sum(-1, keepdim=True)) / 29)


class TestLeastError:
    """Groups picked by the error to expect of a slice's values."""

    @staticmethod
    def groups(*bounds: tuple[float, float], bits: int = 4) -> Groups:
        lower, upper = torch.tensor(bounds).unbind(-1)
        return GroupQuantizer(lower, upper, bits, Channels()).groups

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

    @pytest.mark.parametrize("unit", [2.0**-20, 2.0**10])
    def test_the_unit_of_the_values_does_not_matter(self, unit: float) -> None:
        ranges, bounds = torch.tensor([[-1.0, 2.0], [-0.2, 0.1]]), ((-0.5, 1.5), (-0.1, 0.1))
        scaled = self.groups(*((low * unit, high * unit) for low, high in bounds))
        error = expected_error(ranges * unit, scaled)
        expected = expected_error(ranges, self.groups(*bounds)) * unit**2
        assert torch.allclose(error, expected, rtol=1e-4, atol=0)

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

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_bounds_that_leave_0_out_are_taken_as_they_quantize(self, sign: float) -> None:
        def signed(one: float, other: float) -> tuple[float, float]:
            return min(sign * one, sign * other), max(sign * one, sign * other)

        ranges = torch.tensor([signed(0.0, 0.8)])
        narrow, wide = self.groups(signed(0.4, 0.5)), self.groups(signed(0.0, 0.5))
        assert torch.equal(expected_error(ranges, narrow), expected_error(ranges, wide))

    def test_a_bound_beyond_the_whole_range_clips_its_distance_and_no_more(self) -> None:
        groups = self.groups((-1.0, 0.0))
        rounded = groups.scale.item() ** 2 / 12
        error = expected_error(torch.tensor([[-10.0, -9.0]]), groups)
        assert error.item() == pytest.approx(9**2 + rounded)

    @pytest.mark.parametrize("value", [0.0, 1e-20, 3.0, 1e15])
    def test_slices_of_one_value_and_groups_that_are_not_there_give_no_nan(
        self, value: float
    ) -> None:
        groups = Groups(*(torch.tensor([t, torch.inf]) for t in (-1.0, 1.0, 0.1, 7.0)))
        error = expected_error(torch.tensor([[value, value]]), groups)
        assert not error.isnan().any()
        assert assign(torch.tensor([[value, value]]), groups, Assignment.LEAST_ERROR).item() == 0


class TestSliceQuantizer:
    def test_each_slice_has_its_own_range_as_bounds(self) -> None:
        x = random_activation(0, (2, 3, 4, 5))
        quantized = SliceQuantizer(4, HEADS)(x)
        for image in range(2):
            for head in range(3):
                one = x[image, head]
                plain = fake_quantize(one, *affine_parameters(one.min(), one.max(), 4), 4)
                assert torch.equal(quantized[image, head], plain)

    def test_it_is_what_as_many_groups_as_ranges_come_to(self) -> None:
        x = torch.linspace(-1, 2, 9)[None, :, None] * torch.arange(1.0, 7.0)
        fitted = fit_one(Channels().ranges(x).reshape(1, -1, 2), 6)
        torch.testing.assert_close(fitted(x), SliceQuantizer(4, Channels())(x))


def test_cpu_and_gpu_agree(device: torch.device) -> None:
    x = random_activation(0)
    quantizer = fit_one(random_ranges(0), 4)
    there = GroupQuantizer(quantizer.lower.to(device), quantizer.upper.to(device), 4, Channels())
    torch.testing.assert_close(there(x.to(device)).cpu(), quantizer(x))


class TestKinds:
    """Each kind of grouping knows its ranges and its tag."""

    @pytest.mark.parametrize(
        ("grouping", "shape", "ranges_shape"),
        [
            (Channels(), (2, 3, 4), (2, 1, 4, 2)),
            (Channels(), (2, 4), (2, 4, 2)),
            (Rows(), (2, 5, 3, 3), (2, 5, 3, 1, 2)),
            (Rows(unit=True), (2, 5, 3, 3), (2, 5, 3, 1, 2)),
            (TOKENS, (2, 4), (2, 1, 2)),
            (HEAD_TOKENS, (2, 3, 4, 5), (2, 3, 4, 1, 2)),
            (HEAD_CHANNELS, (2, 3, 4, 5), (2, 3, 1, 5, 2)),
            (HEADS, (2, 3, 4, 5), (2, 3, 1, 1, 2)),
            (Whole(), (2, 3, 4, 4), (2, 1, 1, 1, 2)),
        ],
        ids=str,
    )
    def test_a_range_is_reduced_over_all_that_is_not_a_slice(
        self, grouping: Grouping, shape: tuple[int, ...], ranges_shape: tuple[int, ...]
    ) -> None:
        assert grouping.ranges(torch.randn(shape)).shape == ranges_shape

    def test_the_range_of_a_channel_is_over_the_tokens_of_one_image(self) -> None:
        x = torch.tensor([[[1.0, -5.0], [2.0, 5.0]], [[0.0, 7.0], [-1.0, 8.0]]])
        ranges = Channels().ranges(x)
        assert ranges.squeeze(1).tolist() == [[[1, 2], [-5, 5]], [[-1, 0], [7, 8]]]

    def test_the_range_of_a_row_is_over_the_keys(self) -> None:
        x = torch.tensor([[[[0.25, 0.75], [1.0, 0.0]]]])
        assert Rows().ranges(x).squeeze(-2).tolist() == [[[[0.25, 0.75], [0.0, 1.0]]]]

    @pytest.mark.parametrize("inputs", InputMethod)
    @pytest.mark.parametrize("softmax", SoftmaxMethod)
    @pytest.mark.parametrize("assignment", Assignment)
    def test_the_tag_of_every_layer_s_grouping_stands_for_it(
        self, inputs: InputMethod, softmax: SoftmaxMethod, assignment: Assignment
    ) -> None:
        scheme = Scheme(inputs, softmax, assignment)
        for kind in Kind:
            grouping = grouping_of(Layer("fc", kind, 2, 3, 5), scheme)
            own = getattr(grouping, "assignment", Assignment.NEAREST)
            assert tagged(grouping.tag, own) == grouping

    def test_an_unknown_tag_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="diagonals"):
            tagged("diagonals")

    def test_rows_always_pick_the_nearest_bounds(self) -> None:
        layer = Layer("softmax", Kind.SOFTMAX, 2, 3, 5)
        least = Scheme(softmax=SoftmaxMethod.ROWS, assignment=Assignment.LEAST_ERROR)
        assert grouping_of(layer, least) == Rows(Assignment.NEAREST)


@pytest.mark.parametrize(
    ("tag", "fitted", "keeps_sum"),
    [
        ("channels", True, False),
        ("rows", True, False),
        ("unit rows", True, True),
        ("token groups", False, False),
        ("key groups", False, True),
        ("tokens", False, False),
        ("head tokens", False, False),
        ("head channels", False, False),
    ],
)
def test_a_kind_has_fitted_bounds_or_ranges_of_its_own(
    tag: str, fitted: bool, keeps_sum: bool
) -> None:
    kind = tagged(tag)
    assert (kind.tag, kind.fitted, kind.keeps_sum) == (tag, fitted, keeps_sum)


@pytest.mark.parametrize(
    ("softmax", "tag"),
    [
        (SoftmaxMethod.ROWS, "rows"),
        (SoftmaxMethod.UNIT_ROWS, "unit rows"),
        (SoftmaxMethod.KEYS, "key groups"),
    ],
)
def test_a_scheme_s_softmax_method_names_the_kind(softmax: SoftmaxMethod, tag: str) -> None:
    layer = Layer("softmax", Kind.SOFTMAX, tokens=6, channels=3, outputs=2)
    assert grouping_of(layer, replace(Scheme.PAPER, softmax=softmax)).tag == tag


def test_only_contiguous_groups_grow_to_one_for_each_slice() -> None:
    layer = Layer("fc1", Kind.LINEAR, tokens=6, channels=3, outputs=2)
    kinds = ("channels", "rows", "whole", "tokens", "head tokens", "head channels")
    assert {tagged(tag).most_groups(layer) for tag in kinds} == {1}
    assert tagged("token groups").most_groups(layer) == 3
