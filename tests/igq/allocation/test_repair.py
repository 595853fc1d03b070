"""Allocations brought within limits, drawn, swapped, and found by the relaxation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igq import (
    Allocation,
    CostTable,
    InfeasibleBudgetError,
    Limit,
    Limits,
    Unit,
    allocate,
    largest_uniform,
)
from igq.allocation import random_allocation, relaxed, relaxed_within_all, repair, swap
from tests.makers import alike, counts_of, limits_of, settings_of, table_of

CHOICES = (1, 2, 4, 8)
FEW = settings(deadline=None, derandomize=True)
TABLE = table_of({f"l{i}": {g: (5 + i) * g for g in CHOICES} for i in range(4)}, fixed=9)

Problem = tuple[Allocation, Limits, int]


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    """Layers that cost the more, the more groups they have."""
    steps = st.lists(st.integers(1, 50), min_size=len(CHOICES), max_size=len(CHOICES))
    costs = [np.cumsum(draw(steps)).tolist() for _ in range(draw(st.integers(1, 5)))]
    layers = {f"layer{i}": dict(zip(CHOICES, row, strict=True)) for i, row in enumerate(costs)}
    return table_of(layers, draw(st.integers(0, 100)))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """An allocation, a budget that can be met, and a seed."""
    table = draw(tables())
    start = Allocation.of({name: draw(st.sampled_from(CHOICES)) for name in table.layers})
    budget = draw(st.integers(int(table.minimum), int(table.maximum)))
    return start, limits_of(table, budget), draw(st.integers(0, 2**32))


@st.composite
def sized_problems(draw: st.DrawFn) -> Problem:
    """The same with a limit to the size besides, which a part of a setting decides."""
    costs, sizes, many = {}, {}, draw(st.integers(1, 4))
    values = st.sets(st.integers(1, 9), min_size=many, max_size=many)
    for i in range(draw(st.integers(1, 5))):
        weights, others = sorted(draw(values)), sorted(draw(values))
        pairs = list(enumerate((w, o) for w in weights for o in others))
        costs[f"l{i}"] = {setting: w * o for setting, (w, o) in pairs}
        sizes[f"l{i}"] = {setting: w for setting, (w, _) in pairs}
    some = [
        Allocation.of({n: draw(st.sampled_from(list(row))) for n, row in costs.items()})
        for _ in range(3)
    ]
    table, size = table_of(costs, 3), table_of(sizes, 7, Unit.BYTES)
    limits = Limits((Limit(table, table.of(some[2])), Limit(size, size.of(some[0]))))
    return some[1], limits, draw(st.integers(0, 2**32))


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def repaired(
    cost: dict[str, dict[int, int]],
    size: dict[str, dict[int, int]],
    most: tuple[int, int],
    start: dict[str, int],
) -> set[tuple[int, ...]]:
    """Return the allocations that repair makes with ten seeds, within two limits."""
    tables = table_of(cost), table_of(size, unit=Unit.BYTES)
    limits = Limits(tuple(map(Limit, tables, most)))
    made = [repair(Allocation.of(start), limits, seeded(seed)) for seed in range(10)]
    return {tuple(counts_of(allocation).values()) for allocation in made}


def count(allocation: Allocation, name: str) -> int:
    number = allocation[name].num_groups
    assert number is not None
    return number


class TestRepair:
    @given(problems())
    @FEW
    def test_is_within_the_limits_and_depends_on_the_generator_alone(
        self, problem: Problem
    ) -> None:
        start, limits, seed = problem
        first, second = (repair(start, limits, seeded(seed)) for _ in range(2))
        assert limits.fits(first)
        assert first == second

    @given(problems())
    @FEW
    def test_an_allocation_within_the_budget_only_grows_by_one_setting_each_until_nothing_fits(
        self, problem: Problem
    ) -> None:
        start, limits, seed = problem
        limits = limits.with_budget(limits.table.of(start) + seed % 100)
        kept = repair(start, limits, seeded(seed))
        steps = {n: CHOICES.index(count(kept, n)) - CHOICES.index(count(start, n)) for n in start}
        assert set(steps.values()) <= {0, 1}
        room = limits.budget - limits.table.of(kept)
        for name, costs in limits.table.layers.items():
            known = limits.settings(name)
            place = known.index(kept[name])
            if place + 1 < len(known) and costs[known[place + 1]] - costs[kept[name]] <= room:
                assert steps[name] == 1  # a layer that could still grow has grown already

    @pytest.mark.slow
    @given(tables(), st.integers(0, 2**32))
    @FEW
    def test_the_least_budget_leaves_the_cheapest_allocation(
        self, table: CostTable, seed: int
    ) -> None:
        start = alike(table.layers, max(CHOICES))
        kept = repair(start, limits_of(table, table.minimum), seeded(seed))
        assert kept == alike(table.layers, min(CHOICES))

    @pytest.mark.parametrize("most", [10, 20, 30, 40])
    def test_a_layer_gives_up_no_more_than_it_must(self, most: int) -> None:
        table = table_of({"a": {1: 10, 2: 20, 4: 30, 8: 40, 16: 50}})
        kept = repair(Allocation.of({"a": 16}), table.limit(most), seeded(0))
        assert table.of(kept) == most

    def test_a_layer_gives_up_nothing_for_another_to_take(self) -> None:
        table = table_of({"a": {1: 10, 2: 20, 4: 30, 8: 40, 16: 50}, "b": {1: 0, 2: 10}})
        start = Allocation.of({"a": 16, "b": 1})
        kept = {repair(start, table.limit(40), seeded(seed)) for seed in range(10)}
        assert kept == {Allocation.of({"a": 8, "b": 1})}

    def test_a_layer_that_costs_less_by_one_limit_costs_no_more_by_another(self) -> None:
        cost = {"a": {1: 1, 2: 2, 3: 3}, "b": {1: 1, 2: 1}}
        size = {"a": {1: 5, 2: 9, 3: 7}, "b": {1: 2, 2: 5}}
        assert repaired(cost, size, (3, 12), {"a": 3, "b": 2}) == {(1, 2)}

    def test_a_layer_goes_down_to_what_costs_less_by_the_limit_that_is_broken(self) -> None:
        cost = {"a": {1: 1, 2: 2, 3: 3}, "b": {1: 1, 2: 1}, "c": {1: 0, 2: 1}}
        size = {"a": {1: 5, 2: 9, 3: 9}, "b": {1: 2, 2: 6}, "c": {1: 0, 2: 0}}
        made = repaired(cost, size, (4, 11), {"a": 3, "b": 2, "c": 1})
        assert made == {(1, 2, 2), (3, 1, 1)}

    def test_a_layer_goes_down_where_another_limit_s_cost_stays(self) -> None:
        cost, size = {"a": {1: 1, 2: 2, 3: 3}}, {"a": {1: 5, 2: 5, 3: 5}}
        assert repaired(cost, size, (2, 5), {"a": 3}) == {(2,)}

    def test_a_layer_grows_past_a_setting_that_does_not_fit(self) -> None:
        cost, size = {"a": {1: 1, 2: 2, 3: 3}}, {"a": {1: 5, 2: 9, 3: 7}}
        assert repaired(cost, size, (3, 8), {"a": 1}) == {(3,)}

    def test_generators_of_other_seeds_change_other_layers(self) -> None:
        limits = TABLE.limit(uniform=2)
        start = alike(TABLE.layers, 8)
        assert len({repair(start, limits, seeded(seed)) for seed in range(8)}) > 1

    def test_layers_before_the_first_stay_as_they_are_where_that_can_be(self) -> None:
        limits = limits_of(TABLE, TABLE.of(alike(TABLE.layers, 4)))
        start = Allocation.of({"l0": 8, "l1": 4, "l2": 8, "l3": 4})
        for seed in range(20):
            kept = repair(start, limits, seeded(seed), first=2)
            assert [count(kept, n) for n in ("l0", "l1")] == [8, 4]
        tight = limits_of(TABLE, TABLE.minimum)
        assert repair(start, tight, seeded(0), first=2) == alike(TABLE.layers, 1)

    def test_a_budget_that_nothing_meets_is_refused(self) -> None:
        with pytest.raises(InfeasibleBudgetError, match="cheapest possible"):
            repair(alike(TABLE.layers, 2), limits_of(TABLE, TABLE.minimum - 1), seeded(0))


class TestRandomAllocation:
    @given(problems())
    @FEW
    def test_is_within_the_budget(self, problem: Problem) -> None:
        _, limits, seed = problem
        assert limits.fits(random_allocation(limits, seeded(seed)))

    def test_reaches_every_setting_of_every_layer(self) -> None:
        generator, limits = seeded(0), TABLE.limit(uniform=4)
        drawn = [random_allocation(limits, generator) for _ in range(200)]
        for name in TABLE.layers:
            assert {count(allocation, name) for allocation in drawn} == set(CHOICES)


class TestSwap:
    @FEW
    @given(problems())
    def test_one_layer_takes_what_another_gives_within_the_budget(self, problem: Problem) -> None:
        start, limits, seed = problem
        generator = seeded(seed)
        before = repair(start, limits, generator)
        after = swap(before, limits, generator)
        assert limits.fits(after)
        moved = [CHOICES.index(count(after, n)) - CHOICES.index(count(before, n)) for n in before]
        assert sorted(step for step in moved if step) in ([], [-1, 1])

    def test_the_one_swap_that_fits_is_made(self) -> None:
        table = table_of({"a": {1: 0, 2: 10}, "b": {1: 0, 2: 10}})
        swapped = swap(Allocation.of({"a": 2, "b": 1}), table.limit(10), np.random.default_rng(0))
        assert swapped == Allocation.of({"a": 1, "b": 2})

    def test_where_nothing_can_be_given_nothing_changes_whatever_the_room(self) -> None:
        table = table_of({"a": {1: 0, 2: 9}, "b": {1: 0, 2: 1}})
        cheapest = Allocation.of({"a": 1, "b": 1})
        assert swap(cheapest, limits_of(table, 100), seeded(0)) == cheapest

    def test_where_no_swap_fits_nothing_changes(self) -> None:
        table = table_of({"a": {1: 0, 2: 9}, "b": {1: 0, 2: 1}})
        cheap = Allocation.of({"a": 1, "b": 2})
        assert swap(cheap, limits_of(table, 1), seeded(0)) == cheap


class TestRelaxed:
    """The quick relaxation beside the integer program."""

    COSTS = np.array([[float(c) for c in costs.values()] for costs in TABLE.layers.values()])

    @pytest.mark.parametrize("seed", range(20))
    def test_it_keeps_the_budget_and_is_near_the_integer_program(self, seed: int) -> None:
        loss = np.sort(seeded(seed).exponential(size=self.COSTS.shape))[:, ::-1]
        limits = TABLE.limit(uniform=4)
        room = limits.budget - TABLE.fixed
        places = relaxed(loss, self.COSTS, room)
        each = np.arange(len(self.COSTS))
        assert self.COSTS[each, places].sum() <= room
        named = {
            name: dict(zip(known, row.tolist(), strict=True))
            for (name, known), row in zip(TABLE.layers.items(), loss, strict=True)
        }
        least = sum(named[name][s] for name, s in allocate(named, limits).items())
        assert least - 1e-9 <= loss[each, places].sum() <= least + np.abs(np.diff(loss)).max()

    def test_where_all_fits_every_layer_gets_its_best(self) -> None:
        loss = seeded(0).normal(size=self.COSTS.shape)
        assert relaxed(loss, self.COSTS, np.inf).tolist() == loss.argmin(axis=1).tolist()

    def test_a_setting_of_infinite_cost_is_never_taken(self) -> None:
        costs = self.COSTS.copy()
        costs[:, -1] = np.inf
        assert relaxed(-costs, costs, 1e18).max() < costs.shape[1] - 1

    def test_a_budget_below_the_cheapest_settings_is_refused(self) -> None:
        with pytest.raises(
            InfeasibleBudgetError,
            match=r"^`budget` must be at least the cheapest possible allocation's .*, but got 1\.$",
        ):
            relaxed(np.zeros_like(self.COSTS), self.COSTS, room=1.0)

    @pytest.mark.parametrize("seed", range(10))
    def test_it_keeps_two_limits_and_is_near_the_integer_program(self, seed: int) -> None:
        generator = seeded(seed)
        bits, others = np.meshgrid(np.arange(2, 9), np.arange(2, 9), indexing="ij")
        elements = generator.integers(50, 100, size=(20, 1))
        sizes, costs = elements * bits.ravel(), elements * (bits * others).ravel()
        effects = generator.exponential(size=(20, 2, 1))
        loss = effects[:, 0] / 2.0 ** bits.ravel() + effects[:, 1] / 2.0 ** others.ravel()
        rows = [
            {f"l{i}": dict(enumerate(row)) for i, row in enumerate(numbers.tolist())}
            for numbers in (loss, costs, sizes)
        ]
        most, budget = int(4.5 * elements.sum()), int(20 * elements.sum())
        tables = table_of(rows[1]), table_of(rows[2], unit=Unit.BYTES)
        limits = Limits((Limit(tables[0], budget), Limit(tables[1], most)))
        both = np.stack([costs, sizes]).astype(float)
        places = relaxed_within_all(loss, both, [budget, most])
        assert all(
            numbers[np.arange(20), places].sum() <= limit
            for numbers, limit in ((costs, budget), (sizes, most))
        )
        best = [*counts_of(allocate(settings_of(rows[0]), limits)).values()]
        least, found = (loss[np.arange(20), chosen].sum() for chosen in (best, places))
        assert least - 1e-6 <= found <= 1.05 * least

    def test_a_limit_that_no_price_keeps_is_left_to_the_repair(self) -> None:
        costs = np.array([[[0.0, 1.0]], [[5.0, 3.0]]])
        assert relaxed_within_all(np.array([[0.0, 0.0]]), costs, [0.0, 4.0]).tolist() == [0]


class TestTwoLimits:
    @pytest.mark.slow
    @given(sized_problems())
    @FEW
    def test_every_way_of_making_an_allocation_keeps_both(self, problem: Problem) -> None:
        start, limits, seed = problem
        generator = seeded(seed)
        kept = repair(start, limits, generator)
        made = [
            kept,
            random_allocation(limits, generator),
            swap(kept, limits, generator),
            largest_uniform(limits),
        ]
        assert all(map(limits.fits, made))

    @given(sized_problems())
    @FEW
    def test_an_allocation_that_fits_is_never_made_cheaper(self, problem: Problem) -> None:
        start, limits, seed = problem
        before = repair(start, limits, seeded(seed))
        after = repair(before, limits, seeded(seed))
        table = limits.table
        assert all(table.cost(n, after[n]) >= table.cost(n, before[n]) for n in before)

    @pytest.mark.slow
    @given(sized_problems())
    @FEW
    def test_a_limit_that_all_keep_changes_nothing(self, problem: Problem) -> None:
        start, limits, seed = problem
        budget, size = limits.limits
        loose = Limits((budget, replace(size, most=size.table.maximum)))
        start = repair(start, limits, seeded(seed))
        one, other = (swap(start, x, seeded(seed)) for x in (loose, Limits((budget,))))
        assert one == other
