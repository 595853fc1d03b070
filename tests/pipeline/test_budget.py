"""Budgets as people write them, and allocations that keep them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igq import BopsTable, InfeasibleBudgetError, Layer, Slices, allocate, bops, uniform
from igq.mixed import Options, mixed_bops, mixed_sizes
from igq.settings import Setting
from igq.size import SizeTable
from pipeline.budget import (
    Budgets,
    around,
    keep,
    largest_uniform,
    least_harm,
    least_harm_of_all,
    random_allocation,
    resolve,
    resolve_size,
    swap,
)
from search_spaces import (
    BopsBudget,
    Budget,
    BytesSize,
    OverheadBudget,
    UniformBudget,
    WeightBitsSize,
)

BITS = 4, 4
CHOICES = (1, 2, 4, 8)
FEW = settings(deadline=None, derandomize=True)


@st.composite
def tables(draw: st.DrawFn) -> BopsTable:
    """Layers that cost the more, the more groups they have."""
    steps = st.lists(st.integers(1, 50), min_size=len(CHOICES), max_size=len(CHOICES))
    costs = [np.cumsum(draw(steps)).tolist() for _ in range(draw(st.integers(1, 5)))]
    layers = {f"layer{i}": dict(zip(CHOICES, row, strict=True)) for i, row in enumerate(costs)}
    return BopsTable(layers, draw(st.integers(0, 100)), {n: row[1] for n, row in layers.items()})


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, int], BopsTable, int, int]:
    """An allocation, what it costs, a budget that can be met, and a seed."""
    table = draw(tables())
    most = table.fixed + sum(max(costs.values()) for costs in table.layers.values())
    start = {name: draw(st.sampled_from(CHOICES)) for name in table.layers}
    budget = draw(st.integers(table.minimum, most))
    return start, table, budget, draw(st.integers(0, 2**32))


class TestResolve:
    @pytest.mark.parametrize("groups", [1, 2, 8])
    def test_uniform_is_what_so_many_groups_in_every_layer_cost(
        self, layers: tuple[Layer, ...], table: BopsTable, groups: int
    ) -> None:
        budget = resolve(UniformBudget(uniform=groups), layers, table, *BITS)
        assert budget == table.of(uniform(layers, groups))

    def test_uniform_may_lie_between_the_choices(
        self, layers: tuple[Layer, ...], table: BopsTable
    ) -> None:
        budget = resolve(UniformBudget(uniform=3), layers, table, *BITS)
        assert table.of(uniform(layers, 2)) < budget < table.of(uniform(layers, 4))

    def test_bops_are_taken_as_they_are(self, layers: tuple[Layer, ...], table: BopsTable) -> None:
        wanted = table.minimum + 5
        assert resolve(BopsBudget(bops=wanted), layers, table, *BITS) == wanted

    def test_overhead_is_on_top_of_one_group_everywhere(
        self, layers: tuple[Layer, ...], table: BopsTable
    ) -> None:
        budget = resolve(OverheadBudget(overhead="50 %"), layers, table, *BITS)
        assert budget == int(1.5 * table.of(uniform(layers, 1)))

    def test_overhead_is_on_top_of_one_group_even_where_one_is_no_choice(
        self, layers: tuple[Layer, ...], table: BopsTable
    ) -> None:
        without_one = bops(layers, (2, 4), *BITS)
        overhead = table.overhead(table.of(uniform(layers, 2))) + 1e-9
        budget = resolve(OverheadBudget(overhead=overhead), layers, without_one, *BITS)
        assert budget == table.of(uniform(layers, 2))

    @pytest.mark.parametrize(
        "budget",
        [BopsBudget(bops=1), OverheadBudget(overhead="0.001 %"), UniformBudget(uniform=1)],
        ids=["bops", "overhead", "uniform"],
    )
    def test_a_budget_that_nothing_meets_is_refused_with_the_cheapest_possible(
        self, layers: tuple[Layer, ...], budget: Budget
    ) -> None:
        table = bops(layers, (2, 4), *BITS)
        with pytest.raises(InfeasibleBudgetError, match=re.escape(f"{table.minimum:.4g} BOPs")):
            resolve(budget, layers, table, *BITS)


class TestLargestUniform:
    @pytest.mark.parametrize("groups", CHOICES)
    def test_is_exact_at_its_own_cost(
        self, layers: tuple[Layer, ...], table: BopsTable, groups: int
    ) -> None:
        wanted = uniform(layers, groups)
        assert largest_uniform(table, table.of(wanted)) == wanted

    @pytest.mark.parametrize(("groups", "fewer"), [(2, 1), (4, 2), (8, 4)])
    def test_falls_to_fewer_groups_one_bop_below(
        self, layers: tuple[Layer, ...], table: BopsTable, groups: int, fewer: int
    ) -> None:
        budget = table.of(uniform(layers, groups)) - 1
        assert largest_uniform(table, budget) == uniform(layers, fewer)


class TestKeep:
    @given(problems())
    @FEW
    def test_is_within_the_budget_and_gives_each_layer_one_of_its_choices(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        kept = keep(start, table, budget, np.random.default_rng(seed))
        assert table.of(kept) <= budget  # which also refuses what is not a choice

    @given(problems())
    @FEW
    def test_depends_on_the_generator_alone(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        first, second = (keep(start, table, budget, np.random.default_rng(seed)) for _ in range(2))
        assert first == second

    @given(problems())
    @FEW
    def test_what_was_within_the_budget_only_grows_and_by_one_choice_at_most(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, _, seed = problem
        budget = table.of(start) + seed % 100
        kept = keep(start, table, budget, np.random.default_rng(seed))
        steps = [CHOICES.index(kept[name]) - CHOICES.index(start[name]) for name in start]
        assert set(steps) <= {0, 1}

    @given(problems())
    @FEW
    def test_a_layer_that_could_still_grow_has_grown_already(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, _, seed = problem
        budget = table.of(start) + seed % 100
        kept = keep(start, table, budget, np.random.default_rng(seed))
        room = budget - table.of(kept)
        for name, costs in table.layers.items():
            place = CHOICES.index(kept[name])
            if place + 1 < len(CHOICES) and costs[CHOICES[place + 1]] - costs[kept[name]] <= room:
                assert kept[name] > start[name]

    @given(tables(), st.integers(0, 2**32))
    @FEW
    def test_the_cheapest_allocation_is_what_the_least_budget_leaves(
        self, table: BopsTable, seed: int
    ) -> None:
        start = dict.fromkeys(table.layers, max(CHOICES))
        kept = keep(start, table, table.minimum, np.random.default_rng(seed))
        assert dict(kept) == dict.fromkeys(table.layers, min(CHOICES))

    def test_generators_of_other_seeds_change_other_layers(self, table: BopsTable) -> None:
        start = dict.fromkeys(table.layers, 8)
        budget = table.of(dict.fromkeys(table.layers, 2))
        kept = {keep(start, table, budget, np.random.default_rng(seed)) for seed in range(8)}
        assert len(kept) > 1

    def test_a_budget_that_nothing_meets_is_refused(self, table: BopsTable) -> None:
        with pytest.raises(InfeasibleBudgetError, match="cheapest possible"):
            keep(dict.fromkeys(table.layers, 2), table, table.minimum - 1, np.random.default_rng(0))


class TestRandomAllocation:
    @given(problems())
    @FEW
    def test_is_within_the_budget(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        _, table, budget, seed = problem
        drawn = random_allocation(table, budget, np.random.default_rng(seed))
        assert table.of(drawn) <= budget

    def test_reaches_every_choice_of_every_layer(self, table: BopsTable) -> None:
        generator = np.random.default_rng(0)
        budget = table.of(dict.fromkeys(table.layers, 4))
        drawn = [random_allocation(table, budget, generator) for _ in range(200)]
        for name in table.layers:
            assert {allocation[name] for allocation in drawn} == set(CHOICES)


class TestLeastHarm:
    """The quick relaxation beside the integer program."""

    @pytest.fixture
    def costs(self, table: BopsTable) -> np.ndarray:
        return np.array([[float(c) for c in costs.values()] for costs in table.layers.values()])

    @pytest.mark.parametrize("seed", range(20))
    def test_it_keeps_the_budget_and_is_near_the_integer_program(
        self, table: BopsTable, costs: np.ndarray, seed: int
    ) -> None:
        generator = np.random.default_rng(seed)
        harm = np.sort(generator.exponential(size=costs.shape))[:, ::-1]
        budget = table.of(dict.fromkeys(table.layers, 4))
        chosen = least_harm(harm, costs, budget - table.fixed)
        places = np.arange(len(costs))
        assert costs[places, chosen].sum() <= budget - table.fixed
        named = {
            name: dict(zip(choices, row.tolist(), strict=True))
            for (name, choices), row in zip(table.layers.items(), harm, strict=True)
        }
        best = allocate(named, table, budget)
        least = sum(named[name][groups] for name, groups in best.items())
        step = np.abs(np.diff(harm)).max()
        assert least - 1e-9 <= harm[places, chosen].sum() <= least + step

    def test_where_all_fits_every_layer_gets_its_best(self, costs: np.ndarray) -> None:
        harm = np.random.default_rng(0).normal(size=costs.shape)
        assert least_harm(harm, costs, np.inf).tolist() == harm.argmin(axis=1).tolist()

    def test_a_choice_of_infinite_cost_is_never_taken(self, costs: np.ndarray) -> None:
        costs[:, -1] = np.inf
        assert least_harm(-costs, costs, 1e18).max() < costs.shape[1] - 1

    def test_a_budget_below_the_cheapest_choices_is_refused(self, costs: np.ndarray) -> None:
        with pytest.raises(
            InfeasibleBudgetError,
            match=r"^`budget` must be at least the cheapest possible allocation's .*, but got 1\.$",
        ):
            least_harm(np.zeros_like(costs), costs, room=1.0)


class TestSwap:
    @FEW
    @given(problems())
    def test_one_layer_takes_what_another_gives_within_the_budget(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        generator = np.random.default_rng(seed)
        before = keep(start, table, budget, generator)
        after = swap(before, table, budget, generator)
        assert table.of(after) <= budget
        moved = [CHOICES.index(after[n]) - CHOICES.index(before[n]) for n in before]
        assert sorted(step for step in moved if step) in ([], [-1, 1])

    def test_where_no_swap_fits_nothing_changes(self) -> None:
        table = BopsTable({"a": {1: 0, 2: 9}, "b": {1: 0, 2: 1}}, fixed=0, base={})
        cheap = {"a": 1, "b": 2}
        assert dict(swap(cheap, table, 1, np.random.default_rng(0))) == cheap


def sizes_of(table: BopsTable) -> SizeTable:
    assert table.sizes is not None
    return table.sizes


@st.composite
def sized_problems(draw: st.DrawFn) -> tuple[dict[str, int], BopsTable, int, int]:
    """As `problems`, of choices that are bits of a weight times something, with a size to keep."""
    costs, sizes, many = {}, {}, draw(st.integers(1, 4))
    values = st.sets(st.integers(1, 9), min_size=many, max_size=many)
    for i in range(draw(st.integers(1, 5))):
        weights, others = sorted(draw(values)), sorted(draw(values))
        pairs = list(enumerate((w, o) for w in weights for o in others))
        costs[f"l{i}"] = {choice: w * o for choice, (w, o) in pairs}
        sizes[f"l{i}"] = {choice: w for choice, (w, _) in pairs}
    of_some = [{n: draw(st.sampled_from(list(row))) for n, row in costs.items()} for _ in range(3)]
    most = SizeTable(sizes, 7).of(of_some[0])
    table = BopsTable(costs, 3, base={}, sizes=SizeTable(sizes, 7, most))
    return of_some[1], table, table.of(of_some[2]), draw(st.integers(0, 2**32))


class TestSizes:
    """Whatever keeps the budget keeps the size."""

    @given(sized_problems())
    @FEW
    def test_whoever_makes_an_allocation_keeps_both_limits(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        generator = np.random.default_rng(seed)
        kept = keep(start, table, budget, generator)
        made = [
            kept,
            random_allocation(table, budget, generator),
            swap(kept, table, budget, generator),
            largest_uniform(table, budget),
        ]
        for allocation in made:
            assert table.of(allocation) <= budget
            assert sizes_of(table).of(allocation) <= (sizes_of(table).most or 0)

    def test_a_size_may_leave_a_uniform_allocation_more_bits_for_activations(self) -> None:
        layer = Layer("fc", Slices.CHANNELS, tokens=4, channels=8, outputs=8, weighted=True)
        options = Options((3, 4), (3, 4, 5), (2, 4))
        table, sizes = mixed_bops([layer], options, (4, 4)), mixed_sizes([layer], options, 64)
        budget = table.of({"fc": Setting(4, 4, 2)})
        assert dict(largest_uniform(table, budget)) == {"fc": Setting(4, 4, 2)}
        tight = replace(table, sizes=replace(sizes, most=sizes.minimum))
        assert dict(largest_uniform(tight, budget)) == {"fc": Setting(3, 5, 2)}

    @given(sized_problems())
    @FEW
    def test_what_fits_is_never_made_cheaper(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        before = keep(start, table, budget, np.random.default_rng(seed))
        after = keep(before, table, budget, np.random.default_rng(seed))
        assert all(table.cost(n, after[n]) >= table.cost(n, before[n]) for n in before)

    @given(sized_problems())
    @FEW
    def test_a_limit_that_all_keep_changes_nothing(
        self, problem: tuple[dict[str, int], BopsTable, int, int]
    ) -> None:
        start, table, budget, seed = problem
        most = 7 + sum(max(row.values()) for row in sizes_of(table).layers.values())
        loose = replace(table, sizes=replace(sizes_of(table), most=most))
        free = replace(table, sizes=None)
        allocations = (
            dict(swap(start, t, budget, np.random.default_rng(seed))) for t in (loose, free)
        )
        assert next(allocations) == next(allocations)

    @pytest.mark.parametrize("seed", range(10))
    def test_the_relaxation_keeps_both_and_is_near_the_integer_program(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        bits, others = np.meshgrid(np.arange(2, 9), np.arange(2, 9), indexing="ij")
        elements = generator.integers(50, 100, size=(20, 1))
        sizes, costs = elements * bits.ravel(), elements * (bits * others).ravel()
        worths = generator.exponential(size=(20, 2, 1))
        harm = worths[:, 0] / 2.0 ** bits.ravel() + worths[:, 1] / 2.0 ** others.ravel()
        rows = [
            {f"l{i}": dict(enumerate(row)) for i, row in enumerate(numbers.tolist())}
            for numbers in (harm, costs, sizes)
        ]
        most, budget = int(4.5 * elements.sum()), int(20 * elements.sum())
        table = BopsTable(rows[1], 0, base={}, sizes=SizeTable(rows[2], 0, most))
        both = np.stack([costs, sizes]).astype(float)
        chosen = least_harm_of_all(harm, both, [budget, most])
        assert all(
            numbers[np.arange(20), chosen].sum() <= limit
            for numbers, limit in ((costs, budget), (sizes, most))
        )
        best = [int(str(choice)) for choice in allocate(rows[0], table, budget).values()]
        least, found = (harm[np.arange(20), places].sum() for places in (best, chosen))
        assert least - 1e-6 <= found <= 1.05 * least

    def test_a_size_that_no_price_brings_about_is_left_for_keep_to_mend(self) -> None:
        costs = np.array([[[0.0, 1.0]], [[5.0, 3.0]]])
        assert least_harm_of_all(np.array([[0.0, 0.0]]), costs, [0.0, 4.0]).tolist() == [0]


class TestResolveSize:
    SIZES = SizeTable({"fc1": {1: 100, 2: 200}}, fixed=50)

    def test_bytes_are_taken_as_they_are(self, layers: tuple[Layer, ...]) -> None:
        assert resolve_size(BytesSize(bytes=170), layers, self.SIZES).most == 170

    def test_bits_are_those_of_every_weight(self, layers: tuple[Layer, ...]) -> None:
        weighted = [layer for layer in layers if layer.weighted]
        elements = sum(layer.channels * layer.outputs for layer in weighted)
        found = resolve_size(WeightBitsSize(weight_bits=4), layers, self.SIZES)
        assert found.most == 50 + elements // 2

    def test_nothing_written_is_no_limit(self, layers: tuple[Layer, ...]) -> None:
        assert resolve_size(None, layers, self.SIZES) == self.SIZES

    def test_less_than_the_smallest_is_refused(self, layers: tuple[Layer, ...]) -> None:
        with pytest.raises(InfeasibleBudgetError, match="smallest possible model's 150 bytes"):
            resolve_size(BytesSize(bytes=149), layers, self.SIZES)


class TestBudgets:
    def test_they_spread_evenly_over_the_range(self) -> None:
        drawn = [Budgets(1000, 2000).of(number) for number in range(100)]
        counts = np.histogram(drawn, bins=10, range=(1000, 2000))[0]
        assert counts.min() >= 8
        assert counts.max() <= 12

    def test_a_range_lies_around_its_budget(self, table: BopsTable) -> None:
        budget = table.minimum + 1000
        assert around(budget, table) == Budgets(table.minimum, table.minimum + 2000)
        dearest = table.fixed + sum(max(costs.values()) for costs in table.layers.values())
        assert around(dearest, table) == Budgets(table.minimum, dearest)
