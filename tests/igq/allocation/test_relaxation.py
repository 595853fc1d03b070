"""The relaxed program beside all allocations of small problems, and its parts by hand."""

from itertools import product

import numpy as np
import pytest

from igq.allocation.relaxation import (
    HIGHEST,
    _lowest_price,
    _spend,
    relaxed,
    relaxed_within_all,
)
from igq.errors import InfeasibleBudgetError

LAYERS, SETTINGS = 4, 3


def problem(seed: int, limits: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Losses that fall and costs that rise from setting to setting; room for half of all."""
    generator = np.random.default_rng(seed)
    loss = generator.uniform(0, 1, (LAYERS, SETTINGS)).cumsum(axis=1)[:, ::-1].copy()
    costs = generator.uniform(1, 9, (limits, LAYERS, SETTINGS)).cumsum(axis=2)
    rooms = [float(table.mean(axis=1).sum()) for table in costs]
    return loss, costs, rooms


def total(table: np.ndarray, places: tuple[int, ...] | np.ndarray) -> float:
    return float(table[np.arange(LAYERS), list(places)].sum())


def least(loss: np.ndarray, costs: np.ndarray, rooms: list[float]) -> float:
    """The least loss of all allocations within the limits."""
    everything = product(range(SETTINGS), repeat=LAYERS)
    fit = [
        p for p in everything if all(total(c, p) <= r for c, r in zip(costs, rooms, strict=True))
    ]
    return min(total(loss, places) for places in fit)


@pytest.mark.parametrize("seed", range(12))
def test_the_answer_is_within_one_layer_s_step_of_the_least_and_spends_its_room(seed: int) -> None:
    loss, costs, rooms = problem(seed, limits=1)
    places = relaxed(loss, costs[0], rooms[0])
    used = total(costs[0], places)
    assert used <= rooms[0]
    step = (loss[:, 0] - loss[:, -1]).max()
    assert total(loss, places) - least(loss, costs, rooms) < step
    for layer, place in enumerate(places):
        for other in range(SETTINGS):
            better = loss[layer, other] < loss[layer, place]
            extra = costs[0, layer, other] - costs[0, layer, place]
            assert not (better and extra <= rooms[0] - used), "room is left that would help"


@pytest.mark.parametrize("limits", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_several_limits_are_kept_at_little_more_loss(seed: int, limits: int) -> None:
    loss, costs, rooms = problem(seed, limits)
    places = relaxed_within_all(loss, costs, rooms)
    assert all(total(c, places) <= r for c, r in zip(costs, rooms, strict=True))
    step = (loss[:, 0] - loss[:, -1]).max()
    assert total(loss, places) - least(loss, costs, rooms) < limits * step


def test_one_limit_of_several_is_the_same_as_one() -> None:
    loss, costs, rooms = problem(0, limits=1)
    alone = relaxed(loss, costs[0], rooms[0])
    assert relaxed_within_all(loss, costs, rooms).tolist() == alone.tolist()


def test_a_limit_with_room_for_everything_changes_nothing() -> None:
    loss, costs, rooms = problem(1, limits=2)
    wide = [rooms[0], float(costs[1, :, -1].sum())]  # exactly the most expensive allocation's
    alone = relaxed(loss, costs[0], rooms[0])
    assert relaxed_within_all(loss, costs, wide).tolist() == alone.tolist()


def test_costs_of_nothing_in_a_further_limit_are_no_error() -> None:
    loss, costs, rooms = problem(2, limits=1)
    free = np.concatenate([costs, np.zeros_like(costs)])
    alone = relaxed(loss, costs[0], rooms[0])
    assert relaxed_within_all(loss, free, [rooms[0], 0.0]).tolist() == alone.tolist()


def test_a_setting_that_a_layer_lacks_is_never_taken() -> None:
    loss = np.array([[3.0, 0.0], [3.0, 1.0]])
    costs = np.array([[1.0, np.inf], [1.0, 2.0]])
    assert relaxed(loss, costs, room=100.0).tolist() == [0, 1]
    both = np.stack([costs, costs])
    assert relaxed_within_all(loss, both, [100.0, 3.0]).tolist() == [0, 1]
    assert relaxed_within_all(loss, both, [100.0, 2.0]).tolist() == [0, 0]


def test_room_for_exactly_one_allocation_is_enough_and_less_is_refused() -> None:
    loss, costs = np.array([[2.0, 1.0]]), np.array([[4.0, 6.0]])
    assert relaxed(loss, costs, room=6.0).tolist() == [1]
    assert relaxed(loss, costs, room=4.0).tolist() == [0]
    with pytest.raises(InfeasibleBudgetError, match=r"cheapest possible allocation's 4, but got 3"):
        relaxed(loss, costs, room=3.0)


def test_room_goes_where_a_unit_of_cost_takes_most_loss_away() -> None:
    loss = np.array([[3.0, 1.0, 0.0], [3.0, 2.0, 0.5]])
    costs = np.array([[0.0, 2.0, 4.0], [0.0, 1.0, 3.0]])
    # Rates: 1 and 3/4 of the first layer, 1 and 5/6 of the second; then its first step is left.
    assert _spend(np.array([0, 0]), loss, costs, room=3.0).tolist() == [1, 1]
    assert _spend(np.array([0, 0]), loss, costs, room=2.9).tolist() == [1, 0]
    assert _spend(np.array([1, 1]), loss, costs, room=3.0).tolist() == [1, 1]


def test_a_setting_that_costs_less_and_is_better_is_taken_first() -> None:
    loss, costs = np.array([[0.0, 1.0], [5.0, 1.0]]), np.array([[0.0, 2.0], [0.0, 2.0]])
    assert _spend(np.array([1, 0]), loss, costs, room=2.0).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("least_that_fits", "halvings", "price"),
    [(0.0, 3, 0.0), (0.7, 0, 1.0), (3.0, 0, 4.0), (3.0, 1, 3.0), (2.5, 2, 2.5), (5.0, 50, 5.0)],
)
def test_the_price_is_doubled_until_it_fits_and_the_interval_halved(
    least_that_fits: float, halvings: int, price: float
) -> None:
    assert _lowest_price(lambda tried: tried >= least_that_fits, halvings) == price


def test_where_no_price_fits_it_is_the_highest() -> None:
    assert _lowest_price(lambda tried: False, 5) == HIGHEST


@pytest.mark.parametrize(
    ("rooms", "places"),
    [
        ([2.0, 20.0, 200.0], [1, 1]),
        ([1.0, 20.0, 200.0], [1, 0]),
        ([2.0, 10.0, 200.0], [1, 0]),
        ([2.0, 20.0, 100.0], [1, 0]),
        ([2.0, 0.0, 200.0], [0, 0]),
        ([2.0, 20.0, 0.0], [0, 0]),
    ],
)
def test_each_of_three_limits_is_held_by_its_own_costs_and_room(
    rooms: list[float], places: list[int]
) -> None:
    loss = np.array([[5.0, 0.0], [2.0, 0.0]])
    step = np.array([[0.0, 1.0], [0.0, 1.0]])
    costs = np.stack([step, 10 * step, 100 * step])
    assert relaxed_within_all(loss, costs, rooms).tolist() == places
