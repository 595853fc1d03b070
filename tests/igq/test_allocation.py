"""Allocations, and the one of least harm within a budget (Sec. 3.3)."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igq import (
    Allocation,
    BopsTable,
    InfeasibleBudgetError,
    InvalidArgumentError,
    Layer,
    Slices,
    allocate,
    check_budget,
    uniform,
)

Harm = dict[str, dict[int, float]]

# One layer: each number of groups costs its square, and halves the harm.
ONE = BopsTable({"a": {1: 1, 2: 4, 4: 16}}, fixed=100, base={"a": 1})
ONE_HARM: Harm = {"a": {1: 1.0, 2: 0.5, 4: 0.25}}


def table_of(costs: dict[str, dict[int, int]], fixed: int = 0) -> BopsTable:
    return BopsTable(costs, fixed, {name: min(cost.values()) for name, cost in costs.items()})


def all_allocations(table: BopsTable) -> Iterator[dict[str, int]]:
    for chosen in itertools.product(*table.layers.values()):
        yield dict(zip(table.layers, chosen, strict=True))


def total(harm: Harm, allocation: dict[str, int] | Allocation) -> float:
    return sum(harm[name][g] for name, g in allocation.items())


def least_harm(harm: Harm, table: BopsTable, budget: int) -> float:
    """By looking at every allocation."""
    return min(total(harm, a) for a in all_allocations(table) if table.of(a) <= budget)


def random_problem(seed: int, cost_unit: int, harm_unit: float) -> tuple[Harm, BopsTable, int]:
    """Up to 4 layers with 3 choices each, and the cost of one of the allocations as budget."""
    draw = random.Random(seed)
    costs, harm = {}, {}
    for i in range(draw.randint(1, 4)):
        base = draw.randint(1, 9) * cost_unit
        costs[f"layer{i}"] = {g: base + g * draw.randint(0, 3) for g in (1, 2, 4)}
        harm[f"layer{i}"] = {g: draw.random() * harm_unit for g in (1, 2, 4)}
    table = table_of(costs, fixed=draw.randint(0, 50))
    budget = table.of(draw.choice(list(all_allocations(table))))
    return harm, table, max(budget, table.minimum)


class TestAllocation:
    def test_it_is_a_mapping_in_layer_order(self) -> None:
        allocation = Allocation.of({"b": 4, "a": 2})
        assert list(allocation) == ["b", "a"]
        assert dict(allocation) == {"b": 4, "a": 2}
        assert len(allocation) == 2
        assert "c" not in allocation

    def test_equal_ones_hash_alike(self) -> None:
        assert len({Allocation.of({"a": 2}), Allocation.of({"a": 2}), Allocation.of({"a": 4})}) == 2

    def test_an_unknown_layer_is_a_key_error(self) -> None:
        with pytest.raises(KeyError, match="c"):
            Allocation.of({"a": 2})["c"]

    def test_the_key_is_the_same_in_every_process(self) -> None:
        assert Allocation.of({"a": 2, "b": 4}).key == "a23d8b962f4d"

    def test_the_key_depends_on_the_content_alone(self) -> None:
        key = Allocation.of({"a": 2, "b": 4}).key
        assert Allocation.of({"b": 4, "a": 2}).key == key
        assert Allocation.of({"a": 4, "b": 2}).key != key


class TestUniform:
    def test_every_grouped_layer_gets_the_same(self) -> None:
        fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=4, weighted=True)
        head = Layer("head", Slices.WHOLE, tokens=1, channels=3, outputs=4, weighted=True)
        assert uniform([fc, head], 8) == Allocation.of({"fc": 8})

    @pytest.mark.parametrize("num_groups", [0, -3])
    def test_fewer_than_1_group_are_refused(self, num_groups: int) -> None:
        rule = f"^`num_groups` must be at least 1, but got {num_groups}.$"
        with pytest.raises(InvalidArgumentError, match=rule):
            uniform([], num_groups)


class TestAllocate:
    @pytest.mark.parametrize(
        ("cost_unit", "harm_unit"),
        [(1, 1.0), (1, 1e-9), (10**11, 1.0)],
        ids=["plain", "tiny-harms", "costs-that-differ-by-less-than-the-solver-sees"],
    )
    @pytest.mark.parametrize("seed", range(25))
    def test_it_is_as_good_as_looking_at_every_allocation(
        self, seed: int, cost_unit: int, harm_unit: float
    ) -> None:
        harm, table, budget = random_problem(seed, cost_unit, harm_unit)
        allocation = allocate(harm, table, budget)
        assert table.of(allocation) <= budget
        assert total(harm, allocation) == pytest.approx(least_harm(harm, table, budget), rel=1e-9)

    @given(seed=st.integers(0, 10_000))
    def test_the_optimum_is_found_when_the_budget_is_exactly_its_cost(self, seed: int) -> None:
        harm, table, budget = random_problem(seed, 10**6, 1.0)
        best = allocate(harm, table, budget)
        assert total(harm, allocate(harm, table, table.of(best))) == total(harm, best)

    @pytest.mark.parametrize(
        ("budget", "num_groups"), [(101, 1), (103, 1), (104, 2), (115, 2), (116, 4), (10**12, 4)]
    )
    def test_the_answer_flips_at_the_cost_of_the_next_one(
        self, budget: int, num_groups: int
    ) -> None:
        assert allocate(ONE_HARM, ONE, budget) == Allocation.of({"a": num_groups})

    def test_one_bit_operation_over_a_large_budget_is_too_many(self) -> None:
        # Within the solver's tolerance, so that its first answer has to be turned down.
        table = table_of({"a": {1: 1, 2: 1 + 10**9}, "b": {1: 1, 2: 2}})
        harm = {"a": {1: 1.0, 2: 0.0}, "b": {1: 0.5, 2: 0.0}}
        assert dict(allocate(harm, table, table.minimum + 10**9)) == {"a": 2, "b": 1}
        assert dict(allocate(harm, table, table.minimum + 10**9 + 1)) == {"a": 2, "b": 2}

    def test_more_budget_never_harms_more(self) -> None:
        harm, table, _ = random_problem(3, 1, 1.0)
        costs = sorted({table.of(a) for a in all_allocations(table)})
        harms = [total(harm, allocate(harm, table, budget)) for budget in costs]
        assert harms == sorted(harms, reverse=True)
        assert harms[0] > harms[-1]

    def test_groups_go_where_they_help_most(self) -> None:
        costs = {"a": {1: 0, 2: 10}, "b": {1: 0, 2: 10}}
        harm = {"a": {1: 0.3, 2: 0.2}, "b": {1: 0.9, 2: 0.1}}
        assert dict(allocate(harm, table_of(costs, fixed=1), 11)) == {"a": 1, "b": 2}

    def test_negative_harms_are_allowed(self) -> None:
        # A layer may happen to be better off quantized.
        assert allocate({"a": {1: 0.0, 2: -0.1, 4: 0.1}}, ONE, 10**6) == Allocation.of({"a": 2})

    def test_no_harm_at_all_is_allowed(self) -> None:
        assert set(allocate({"a": {1: 0.0, 2: 0.0, 4: 0.0}}, ONE, 10**6)) == {"a"}

    def test_a_model_of_deit_s_size_takes_a_moment(self) -> None:
        draw = random.Random(0)
        choices = (1, 2, 4, 6, 8, 10, 12, 16)
        costs = {f"l{i}": {g: (10 + i % 5) * 12_345 * g for g in choices} for i in range(60)}
        harm = {name: {g: draw.random() / g for g in choices} for name in costs}
        table = table_of(costs)
        budget = table.of(dict.fromkeys(costs, 8))
        allocation = allocate(harm, table, budget)
        assert table.of(allocation) <= budget
        assert total(harm, allocation) < total(harm, dict.fromkeys(costs, 8))

    @pytest.mark.parametrize("odd", [float("nan"), float("inf")])
    def test_a_harm_that_is_not_finite_is_refused(self, odd: float) -> None:
        with pytest.raises(InvalidArgumentError) as raised:
            allocate({"a": {1: 1.0, 2: odd, 4: 0.1}}, ONE, 10**6)
        assert str(raised.value) == (
            "`harm` must be a finite number for every layer and number of groups, "
            f"but got {odd} for a with 2 groups."
        )

    @pytest.mark.parametrize("harm", [{}, {"a": {1: 1.0, 4: 0.1}}], ids=["layer", "num_groups"])
    def test_a_harm_that_is_missing_is_refused(self, harm: Harm) -> None:
        with pytest.raises(InvalidArgumentError, match="but got nan for a with"):
            allocate(harm, ONE, 10**6)

    def test_a_budget_below_the_cheapest_allocation_is_infeasible(self) -> None:
        with pytest.raises(InfeasibleBudgetError, match="but got budget=100"):
            allocate(ONE_HARM, ONE, 100)


class TestCheckBudget:
    def test_the_cheapest_allocation_s_cost_is_enough(self) -> None:
        assert check_budget(ONE, 101) == 101

    def test_one_bit_operation_less_is_not_and_the_message_says_what_would_be(self) -> None:
        with pytest.raises(InfeasibleBudgetError) as raised:
            check_budget(ONE, 100)
        assert str(raised.value) == (
            "`budget` must be at least the cheapest possible allocation's 101 BOPs, "
            "but got budget=100."
        )
