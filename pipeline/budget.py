"""Budgets as people write them, and allocations that keep them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from igq import Allocation, BopsTable, InfeasibleBudgetError, Layer, check_budget, uniform
from igq import bops as bops_table
from igq.mixed import uniform_allocations, uniform_of_any_bits
from igq.settings import Choice, Setting
from igq.size import SizeTable, check_size, weight_bytes
from search_spaces import (
    BopsBudget,
    Budget,
    BytesSize,
    OverheadBudget,
    Size,
    UniformBudget,
    WeightBitsSize,
)

Generator = np.random.Generator
Places = Int[np.ndarray, " layers"]
"""The place of each layer's number of groups among its choices."""
HALVINGS = 50
"""Of the interval that holds the price of a BOP: it is then known to 15 digits."""
COARSE_HALVINGS = 20
"""Of the interval that holds the price of a byte: `keep` spends what is left over."""
HIGHEST = 2.0**30
"""No price above is tried."""
GOLDEN = 0.6180339887498949
"""Multiples of it, their whole parts left out, fill an interval evenly however many there are."""


@dataclass(frozen=True)
class Budgets:
    """The budget of each proposal of a study, in BOPs: between `low` and `high`.

    >>> Budgets(100, 100).of(7), Budgets(100, 200).of(0), Budgets(100, 200).of(1)
    (100, 200, 139)
    """

    low: int
    high: int

    def of(self, number: int) -> int:
        """The budget of the proposal with this number; an even spread over any run of numbers."""
        return self.high - int((number * GOLDEN) % 1 * (self.high - self.low))


def around(budget: int, bops: BopsTable) -> Budgets:
    """From the cheapest allocation to as far above a budget as that one is below it."""
    most = bops.fixed + sum(max(costs.values()) for costs in bops.layers.values())
    return Budgets(bops.minimum, min(2 * budget - bops.minimum, most))


def resolve(
    budget: Budget,
    layers: tuple[Layer, ...],
    bops: BopsTable,
    weight_bits: int,
    activation_bits: int,
) -> int:
    """The budget in BOPs of one image.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.
    """
    match budget:
        case UniformBudget(uniform=written):
            groups = written if isinstance(written, int) else Setting.parse(written).num_groups or 1
            table = bops_table(layers, (groups,), weight_bits, activation_bits)
            most = table.of(uniform(layers, groups))
        case BopsBudget(bops=most_bops):
            most = int(most_bops)
        case OverheadBudget(overhead=share):
            most = int(bops.ungrouped * (1 + share))
    return check_budget(bops, most)


def resolve_size(size: Size | None, layers: tuple[Layer, ...], sizes: SizeTable) -> SizeTable:
    """`sizes` with the most bytes that the model may take.

    Raises:
        InfeasibleBudgetError: even the smallest model is larger.
    """
    match size:
        case BytesSize(bytes=most):
            return check_size(replace(sizes, most=most))
        case WeightBitsSize(weight_bits=bits):
            codes = sum(weight_bytes(layer, bits) for layer in layers)
            return check_size(replace(sizes, most=sizes.fixed + codes))
        case None:
            return sizes


def largest_uniform(bops: BopsTable, budget: int) -> Allocation:
    """The dearest uniform allocation that the budget allows, in a space of groups that with most.

    Where the size is limited, which only weights decide, activations may have other bits than they.
    """
    check_budget(bops, budget)
    one_limit = len(bops.limits(budget)) == 1
    known = uniform_allocations(bops) if one_limit else uniform_of_any_bits(bops)
    return [allocation for allocation in known if bops.fits(allocation, budget)][-1]


def random_allocation(bops: BopsTable, budget: int, generator: Generator) -> Allocation:
    """A random allocation that spends what the budget allows."""
    choices = {name: bops.choices(name) for name in bops.layers}
    drawn = {name: known[int(generator.integers(len(known)))] for name, known in choices.items()}
    return keep(drawn, bops, budget, generator)


def keep(
    num_groups: Mapping[str, Choice],
    bops: BopsTable,
    budget: int,
    generator: Generator,
    first: int = 0,
) -> Allocation:
    """The allocation brought within the budget by small changes, and up to it where it can be.

    While it takes too much, a layer drawn at random goes one choice down; then, layers in random
    order go one choice up as long as that fits. With a limit of size besides, one down is the
    nearest cheaper choice that is no larger, one up the nearest dearer one that keeps both.
    Layers before the `first` stay as they are, unless nothing else brings it within.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger.
    """
    check_budget(bops, budget)
    limits = bops.limits(budget)
    choices = {name: bops.choices(name) for name in bops.layers}
    costs = {
        name: np.array([[table.layers[name][choice] for table, _ in limits] for choice in known])
        for name, known in choices.items()
    }
    place = {name: known.index(num_groups[name]) for name, known in choices.items()}
    free = list(choices)[first:]
    room = np.array([most - table.of(num_groups) for table, most in limits])
    lower = cache(lambda name, index, limit: _lower(costs[name], index, limit))
    while (room < 0).any():
        limit = int((room < 0).argmax())
        found = ((name, lower(name, index, limit)) for name, index in place.items())
        below = {name: index for name, index in found if index is not None}
        name = str(generator.choice([n for n in free if n in below] or list(below)))
        room += costs[name][place[name]] - costs[name][below[name]]
        place[name] = below[name]
    for name in generator.permutation(free):
        steps = costs[name][place[name] + 1 :] - costs[name][place[name]]
        if (fits := (steps <= room).all(axis=1)).any():
            room -= steps[fits.argmax()]
            place[name] += 1 + int(fits.argmax())
    return Allocation.of({name: choices[name][index] for name, index in place.items()})


def _lower(costs: Int[np.ndarray, "choices limits"], index: int, limit: int) -> int | None:
    """The nearest place below that takes less of one limit, and no more of any."""
    less = (costs[:index] <= costs[index]).all(axis=1) & (costs[:index] < costs[index])[:, limit]
    return int(np.flatnonzero(less)[-1]) if less.any() else None


def least_harm(
    harm: Float[np.ndarray, "layers choices"],
    costs: Float[np.ndarray, "layers choices"],
    room: float | int,
) -> Places:
    """The choice of each layer with little harm in total whose costs sum to at most `room`.

    Lagrange's relaxation of the integer program that `igq.allocate` solves: each layer takes what
    is best at one price of cost, and what the budget leaves over is spent where it helps most. It
    takes a millisecond, and its harm is above the least by less than one layer's step. A choice
    that a layer does not have costs infinity.

    Raises:
        InfeasibleBudgetError: even the cheapest choices cost more.

    >>> harm, costs = np.array([[0.3, 0.2], [0.9, 0.1]]), np.array([[0.0, 10.0], [0.0, 10.0]])
    >>> least_harm(harm, costs, room=11.0).tolist()
    [0, 1]
    """
    layers = np.arange(len(harm))
    cheapest = costs.min(axis=1).sum()
    if cheapest > room:
        raise InfeasibleBudgetError(
            f"`budget` must be at least the cheapest possible allocation's {cheapest:.4g}, "
            f"but got {room:.4g}."
        )
    absent = np.isinf(costs)
    harm, costs = np.where(absent, np.inf, harm), np.where(absent, 0.0, costs)

    def cost(places: Places) -> float:
        return float(costs[layers, places].sum())

    def at(price: float) -> Places:
        chosen: Places = (harm + price * costs).argmin(axis=1)
        return chosen

    places = at(_lowest_price(lambda price: cost(at(price)) <= room, HALVINGS))
    assert cost(places) <= room  # the cheapest choices fit
    while True:
        gain = harm[layers, places][:, None] - harm
        extra = costs - costs[layers, places][:, None]
        fits = (gain > 0) & (extra <= room - cost(places))
        if not fits.any():
            return places
        worth = np.where(fits, gain / np.maximum(extra, 1e-12), -np.inf)
        layer, choice = np.unravel_index(worth.argmax(), worth.shape)
        places[layer] = choice


def least_harm_of_all(
    harm: Float[np.ndarray, "layers choices"],
    costs: Float[np.ndarray, "limits layers choices"],
    rooms: Sequence[float | int],
) -> Places:
    """`least_harm` for several limits: all but the first have a price that is added to the harm.

    Where no price brings the last limits about, the answer is over them, and `keep` mends it.
    """
    if len(rooms) == 1:
        return least_harm(harm, costs[0], rooms[0])
    last = np.where(np.isinf(costs[-1]), 0.0, costs[-1])
    unit = last.max() or 1.0

    def at(price: float) -> Places:
        return least_harm_of_all(harm + price * last / unit, costs[:-1], rooms[:-1])

    def fits(price: float) -> bool:
        return float(last[np.arange(len(harm)), at(price)].sum()) <= rooms[-1]

    return at(_lowest_price(fits, COARSE_HALVINGS))


def _lowest_price(fits: Callable[[float], bool], halvings: int) -> float:
    """The lowest price at which what is bought fits; the highest where it does at none."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < HIGHEST and not fits(high):
        low, high = high, 2 * high
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def swap(
    allocation: Mapping[str, Choice], bops: BopsTable, budget: int, generator: Generator
) -> Allocation:
    """The allocation with one layer a choice up and another a choice down, within all limits.

    Drawn from all such pairs; where there is none, the allocation as it is.
    """
    choices = {name: bops.choices(name) for name in bops.layers}
    up, down = {}, {}
    for name in choices:
        place = choices[name].index(allocation[name])
        if place + 1 < len(choices[name]):
            up[name] = choices[name][place + 1]
        if place > 0:
            down[name] = choices[name][place - 1]
    limits = bops.limits(budget)
    room = [most - table.of(allocation) for table, most in limits]

    def steps(name: str, choice: Choice) -> list[int]:
        costs = (table.layers[name] for table, _ in limits)
        return [row[choice] - row[allocation[name]] for row in costs]

    givers = [(name, steps(name, choice)) for name, choice in down.items()]
    pairs = [
        (taker, giver)
        for taker, more in ((name, steps(name, choice)) for name, choice in up.items())
        for giver, less in givers
        if taker != giver and all(m + n <= r for m, n, r in zip(more, less, room, strict=True))
    ]
    if not pairs:
        return Allocation.of(allocation)
    taker, giver = pairs[int(generator.integers(len(pairs)))]
    return Allocation.of({**allocation, taker: up[taker], giver: down[giver]})
