"""The size of a model: what it counts, and how it limits allocations."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import igq
from igq import BopsTable, InfeasibleBudgetError, InvalidArgumentError, Layer, Slices, allocate
from igq.layers import Tie
from igq.mixed import Options, mixed_bops, mixed_sizes
from igq.size import SizeTable, check_size, other_bytes, weight_bytes

FC = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
SOFTMAX = Layer("softmax", Slices.ROWS, tokens=6, channels=3, outputs=2, weighted=False)
OPTIONS = Options((3, 4, 8), (4, 6), (2, 4))


class TestClosedForm:
    @pytest.mark.parametrize(("bits", "size"), [(2, 4), (3, 6), (4, 8), (8, 15)])
    def test_codes_are_packed_and_the_last_byte_is_filled_up(self, bits: int, size: int) -> None:
        assert weight_bytes(FC, bits) == size

    def test_a_softmax_map_has_no_weight(self) -> None:
        assert weight_bytes(SOFTMAX, 8) == 0

    def test_all_else_are_scales_zero_points_and_what_is_not_quantized(self) -> None:
        assert other_bytes([FC, SOFTMAX], parameters=15 + 7) == 4 * 7 + 4 * 2 * 5

    @pytest.mark.parametrize("tie", [None, *Tie])
    @pytest.mark.parametrize("bits", OPTIONS.weight_bits)
    def test_a_setting_s_size_is_that_of_its_weight_bits_alone(
        self, vit: nn.Module, tie: Tie | None, bits: int
    ) -> None:
        listed, parameters = igq.layers(vit), sum(p.numel() for p in vit.parameters())
        table = mixed_sizes(listed, OPTIONS, parameters, tie)
        settings = {
            name: next(s for s in choices if s.weight_bits in (bits, None))
            for name, choices in table.layers.items()
        }
        codes = sum(
            -(-layer.channels * layer.outputs * bits // 8) for layer in listed if layer.weighted
        )
        assert table.of(settings) == codes + other_bytes(listed, parameters)
        assert table.varies
        assert not mixed_sizes(listed, replace(OPTIONS, weight_bits=(4,)), parameters).varies


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, dict[int, float]], BopsTable, int]:
    """A few layers with bits and groups to choose, harms, and a budget and a size to be kept."""
    costs, sizes, harm = {}, {}, {}
    for i in range(draw(st.integers(1, 4))):
        weights = sorted(draw(st.sets(st.integers(1, 9), min_size=2, max_size=3)))
        others = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=3)))
        pairs = list(enumerate(itertools.product(weights, others)))
        costs[f"l{i}"] = {choice: w * o for choice, (w, o) in pairs}
        sizes[f"l{i}"] = {choice: w for choice, (w, _) in pairs}
        harm[f"l{i}"] = {choice: draw(st.floats(-1, 1)) for choice, _ in pairs}
    fixed = draw(st.integers(0, 20))
    table = BopsTable(costs, fixed, base={}, sizes=SizeTable(sizes, fixed))
    some = {name: draw(st.sampled_from(list(row))) for name, row in costs.items()}
    other = {name: draw(st.sampled_from(list(row))) for name, row in costs.items()}
    assert table.sizes is not None
    limited = replace(table, sizes=replace(table.sizes, most=table.sizes.of(other)))
    return harm, limited, table.of(some)


class TestAllocate:
    @given(problems())
    def test_it_is_as_good_as_looking_at_every_allocation_and_keeps_both_limits(
        self, problem: tuple[dict[str, dict[int, float]], BopsTable, int]
    ) -> None:
        harm, table, budget = problem
        assert table.sizes is not None
        assert table.sizes.most is not None

        def total(allocation: dict[str, int]) -> float:
            return sum(harm[name][choice] for name, choice in allocation.items())

        chosen = dict(allocate(harm, table, budget))
        assert table.of(chosen) <= budget
        assert table.sizes.of(chosen) <= table.sizes.most
        every = (dict(zip(harm, c, strict=True)) for c in itertools.product(*harm.values()))
        fitting = [total(a) for a in every if table.fits(a, budget)]
        assert total(chosen) == pytest.approx(min(fitting), abs=1e-6)

    def test_the_answer_flips_at_the_size_of_the_next_one(self) -> None:
        costs, sizes = {"a": {1: 1, 2: 2}}, {"a": {1: 10, 2: 20}}
        harm = {"a": {1: 1.0, 2: 0.5}}

        def chosen(most: int | None) -> int:
            table = BopsTable(costs, 0, {}, sizes=SizeTable(sizes, 100, most))
            return int(str(allocate(harm, table, 10)["a"]))

        assert [chosen(most) for most in (110, 119, 120, None)] == [1, 1, 2, 2]


class TestTable:
    TABLE = BopsTable(
        {"a": {1: 1, 2: 2}, "b": {1: 1, 2: 2}},
        fixed=0,
        base={},
        sizes=SizeTable({"a": {1: 10, 2: 20}, "b": {1: 5, 2: 5}}, fixed=1, most=25),
    )

    def test_without_a_most_there_is_one_limit_and_still_a_size(self, vit: nn.Module) -> None:
        listed = igq.layers(vit)
        sizes = mixed_sizes(listed, OPTIONS, sum(p.numel() for p in vit.parameters()))
        table = replace(mixed_bops(listed, OPTIONS, (4, 4)), sizes=sizes)
        assert [most for _, most in table.limits(7)] == [7]
        cheapest = {name: table.choices(name)[0] for name in table.layers}
        assert table.size_of(cheapest) == sizes.minimum
        assert replace(table, sizes=None).size_of(cheapest) is None

    def test_an_allocation_fits_that_keeps_both(self) -> None:
        assert self.TABLE.fits({"a": 1, "b": 2}, budget=3)
        assert not self.TABLE.fits({"a": 1, "b": 2}, budget=2)
        assert not self.TABLE.fits({"a": 2, "b": 1}, budget=3)

    def test_ties_have_the_sizes_of_their_layers_together(self) -> None:
        tied = replace(self.TABLE, sizes=replace(self.TABLE.sizes, most=None)).tied({"ab": "ab"})
        assert [tied.size_of({"ab": choice}) for choice in (1, 2)] == [16, 26]

    def test_a_cheapest_choice_that_is_not_the_smallest_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            BopsTable({"a": {1: 1, 2: 2}}, 0, {}, sizes=SizeTable({"a": {1: 9, 2: 5}}, 0))
        assert str(raised.value) == (
            "`sizes` must be least for a layer's cheapest choice, but got 9 for a with 1."
        )

    def test_a_size_that_nothing_has_is_infeasible_and_the_message_says_what_would_be(self) -> None:
        tight = replace(self.TABLE, sizes=replace(self.TABLE.sizes, most=15))
        said = (
            "`max_size` must be at least the smallest possible model's 16 bytes, "
            "but got max_size=15 bytes."
        )
        for check in (lambda: check_size(tight.sizes), lambda: allocate({}, tight, 9)):
            with pytest.raises(InfeasibleBudgetError) as raised:
                check()
            assert str(raised.value) == said
        assert check_size(replace(tight.sizes, most=16)).most == 16
