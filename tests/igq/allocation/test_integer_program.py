"""The allocation of least sensitivity within limits (Sec. 3.3), beside every allocation."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igq import (
    Allocation,
    CostTable,
    InfeasibleBudgetError,
    InvalidArgumentError,
    Limit,
    Limits,
    Setting,
    Unit,
    allocate,
)
from tests.makers import alike, counts_of, limits_of, settings_of, table_of

Table = dict[str, dict[Setting, float]]

# One layer: each number of groups costs its square, and halves the loss.
ONE = table_of({"a": {1: 1, 2: 4, 4: 16}}, fixed=100)
ONE_LOSS = settings_of({"a": {1: 1.0, 2: 0.5, 4: 0.25}})


def all_allocations(table: CostTable) -> Iterator[Allocation]:
    for chosen in itertools.product(*table.layers.values()):
        yield Allocation.of(dict(zip(table.layers, chosen, strict=True)))


def total(loss: Table, allocation: Allocation) -> float:
    return sum(loss[name][setting] for name, setting in allocation.items())


def least(loss: Table, limits: Limits) -> float:
    """By looking at every allocation."""
    return min(total(loss, a) for a in all_allocations(limits.table) if limits.fits(a))


def random_problem(seed: int, cost_unit: int, loss_unit: float) -> tuple[Table, Limits]:
    """Up to 4 layers with 3 settings each, and the cost of one of the allocations as budget."""
    draw = random.Random(seed)
    costs, loss = {}, {}
    for i in range(draw.randint(1, 4)):
        base = draw.randint(1, 9) * cost_unit
        costs[f"layer{i}"] = {g: base + g * draw.randint(0, 3) for g in (1, 2, 4)}
        loss[f"layer{i}"] = {g: draw.random() * loss_unit for g in (1, 2, 4)}
    table = table_of(costs, fixed=draw.randint(0, 50))
    budget = table.of(draw.choice(list(all_allocations(table))))
    return settings_of(loss), limits_of(table, max(budget, table.minimum))


@st.composite
def two_limits(draw: st.DrawFn) -> tuple[Table, Limits]:
    """A few layers with a loss, a cost and a size for each setting, and a limit to both."""
    costs, sizes, loss = {}, {}, {}
    for i in range(draw(st.integers(1, 4))):
        weights = sorted(draw(st.sets(st.integers(1, 9), min_size=2, max_size=3)))
        others = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=3)))
        pairs = list(enumerate(itertools.product(weights, others)))
        costs[f"l{i}"] = {setting: w * o for setting, (w, o) in pairs}
        sizes[f"l{i}"] = {setting: w for setting, (w, _) in pairs}
        loss[f"l{i}"] = {setting: draw(st.floats(-1, 1)) for setting, _ in pairs}
    fixed = draw(st.integers(0, 20))
    table, size = table_of(costs, fixed), table_of(sizes, fixed, Unit.BYTES)
    some, other = (
        Allocation.of({name: draw(st.sampled_from(list(row))) for name, row in costs.items()})
        for _ in range(2)
    )
    return settings_of(loss), Limits((Limit(table, table.of(some)), Limit(size, size.of(other))))


@pytest.mark.parametrize(
    ("cost_unit", "loss_unit"),
    [(1, 1.0), (1, 1e-9), (10**11, 1.0)],
    ids=["plain", "tiny-losses", "costs-that-differ-by-less-than-the-solver-sees"],
)
@pytest.mark.parametrize("seed", range(25))
def test_it_is_as_good_as_looking_at_every_allocation(
    seed: int, cost_unit: int, loss_unit: float
) -> None:
    loss, limits = random_problem(seed, cost_unit, loss_unit)
    allocation = allocate(loss, limits)
    assert limits.fits(allocation)
    assert total(loss, allocation) == pytest.approx(least(loss, limits), rel=1e-9)


@pytest.mark.slow
@given(two_limits())
def test_so_it_is_within_two_limits(problem: tuple[Table, Limits]) -> None:
    loss, limits = problem
    chosen = allocate(loss, limits)
    assert limits.fits(chosen)
    assert total(loss, chosen) == pytest.approx(least(loss, limits), abs=1e-6)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
def test_the_optimum_is_found_when_the_budget_is_exactly_its_cost(seed: int) -> None:
    loss, limits = random_problem(seed, 10**6, 1.0)
    best = allocate(loss, limits)
    exact = limits.with_budget(limits.table.of(best))
    assert total(loss, allocate(loss, exact)) == total(loss, best)


@pytest.mark.parametrize(
    ("budget", "number"), [(101, 1), (103, 1), (104, 2), (115, 2), (116, 4), (10**12, 4)]
)
def test_the_answer_flips_at_the_cost_of_the_next_one(budget: int, number: int) -> None:
    assert allocate(ONE_LOSS, limits_of(ONE, budget)) == Allocation.of({"a": number})


def test_it_flips_at_the_size_of_the_next_one_too() -> None:
    table = table_of({"a": {1: 1, 2: 2}})
    sizes = table_of({"a": {1: 10, 2: 20}}, fixed=100, unit=Unit.BYTES)
    loss = settings_of({"a": {1: 1.0, 2: 0.5}})
    found = [
        allocate(loss, Limits((Limit(table, 10), Limit(sizes, most))))["a"].num_groups
        for most in (110, 119, 120, float("inf"))
    ]
    assert found == [1, 1, 2, 2]


def test_one_bit_operation_over_a_large_budget_is_too_many() -> None:
    # Within the solver's tolerance, so that its first answer has to be turned down.
    table = table_of({"a": {1: 1, 2: 1 + 10**9}, "b": {1: 1, 2: 2}})
    loss = settings_of({"a": {1: 1.0, 2: 0.0}, "b": {1: 0.5, 2: 0.0}})
    tight, wide = (limits_of(table, table.minimum + 10**9 + more) for more in (0, 1))
    assert counts_of(allocate(loss, tight)) == {"a": 2, "b": 1}
    assert counts_of(allocate(loss, wide)) == {"a": 2, "b": 2}


def test_more_budget_never_loses_more() -> None:
    loss, limits = random_problem(3, 1, 1.0)
    costs = sorted({limits.table.of(a) for a in all_allocations(limits.table)})
    losses = [total(loss, allocate(loss, limits.with_budget(cost))) for cost in costs]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_groups_go_where_they_help_most() -> None:
    table = table_of({"a": {1: 0, 2: 10}, "b": {1: 0, 2: 10}}, fixed=1)
    loss = settings_of({"a": {1: 0.3, 2: 0.2}, "b": {1: 0.9, 2: 0.1}})
    assert counts_of(allocate(loss, limits_of(table, 11))) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("loss", "number"), [({1: 0.0, 2: -0.1, 4: 0.1}, 2), ({1: 0.0, 2: 0.0, 4: 0.0}, None)]
)
def test_losses_may_be_negative_or_0(loss: dict[int, float], number: int | None) -> None:
    found = allocate(settings_of({"a": loss}), limits_of(ONE, 10**6))["a"].num_groups
    assert number is None or found == number


def test_a_model_of_deit_s_size_takes_a_moment() -> None:
    draw = random.Random(0)
    known = (1, 2, 4, 6, 8, 10, 12, 16)
    costs = {f"l{i}": {g: (10 + i % 5) * 12_345 * g for g in known} for i in range(60)}
    loss = settings_of({name: {g: draw.random() / g for g in known} for name in costs})
    table = table_of(costs)
    limits = table.limit(uniform=8)
    allocation = allocate(loss, limits)
    assert limits.fits(allocation)
    assert total(loss, allocation) < total(loss, alike(costs, 8))


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_sensitivity_that_is_not_finite_is_refused(odd: float) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        allocate(settings_of({"a": {1: 1.0, 2: odd, 4: 0.1}}), limits_of(ONE, 10**6))
    assert str(raised.value) == (
        "`sensitivity` must be a finite number for every layer and setting, "
        f"but got {odd} for a with 2."
    )


@pytest.mark.parametrize("loss", [{}, {"a": {1: 1.0, 4: 0.1}}], ids=["layer", "num_groups"])
def test_a_sensitivity_that_is_missing_is_refused(loss: dict[str, dict[int, float]]) -> None:
    with pytest.raises(InvalidArgumentError, match="but got nan for a with"):
        allocate(settings_of(loss), limits_of(ONE, 10**6))


def test_a_budget_below_the_cheapest_allocation_is_infeasible() -> None:
    with pytest.raises(InfeasibleBudgetError, match="but got budget=100"):
        allocate(ONE_LOSS, limits_of(ONE, 100))
