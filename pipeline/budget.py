"""Budgets as people write them, and allocations that keep them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from igq import Allocation, BopsTable, InfeasibleBudgetError, Layer, check_budget, uniform
from igq import bops as bops_table
from igq.mixed import uniform_allocations
from igq.settings import Choice, Setting
from search_spaces import BopsBudget, Budget, OverheadBudget, UniformBudget

Generator = np.random.Generator
Places = Int[np.ndarray, " layers"]
"""The place of each layer's number of groups among its choices."""
HALVINGS = 50
"""Of the interval that holds the price of a BOP: it is then known to 15 digits."""
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


def largest_uniform(bops: BopsTable, budget: int) -> Allocation:
    """The uniform allocation with the most groups that the budget allows."""
    return [a for a in uniform_allocations(bops) if bops.of(a) <= check_budget(bops, budget)][-1]


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

    While it costs too much, a layer drawn at random goes one choice down; then, layers in random
    order go one choice up as long as the budget allows. Layers before the `first` stay as they
    are, unless the budget cannot be kept without them.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.
    """
    check_budget(bops, budget)
    choices = {name: bops.choices(name) for name in bops.layers}
    free = list(choices)[first:]
    place = {name: choices[name].index(num_groups[name]) for name in choices}

    def cost(name: str, index: int) -> int:
        return bops.layers[name][choices[name][index]]

    total = bops.fixed + sum(cost(name, index) for name, index in place.items())
    while total > budget:
        lowered = [n for n in free if place[n] > 0] or [n for n in choices if place[n] > 0]
        name = str(generator.choice(lowered))
        total += cost(name, place[name] - 1) - cost(name, place[name])
        place[name] -= 1
    for name in generator.permutation(free):
        if place[name] + 1 < len(choices[name]):
            step = cost(name, place[name] + 1) - cost(name, place[name])
            if total + step <= budget:
                place[name], total = place[name] + 1, total + step
    return Allocation.of({name: choices[name][index] for name, index in place.items()})


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

    if cost(at(0.0)) <= room:
        return at(0.0)
    low, high = 0.0, 1.0
    while cost(at(high)) > room:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(at(middle)) > room else (low, middle)
    places = at(high)
    while True:
        gain = harm[layers, places][:, None] - harm
        extra = costs - costs[layers, places][:, None]
        fits = (gain > 0) & (extra <= room - cost(places))
        if not fits.any():
            return places
        worth = np.where(fits, gain / np.maximum(extra, 1e-12), -np.inf)
        layer, choice = np.unravel_index(worth.argmax(), worth.shape)
        places[layer] = choice


def swap(
    allocation: Mapping[str, Choice], bops: BopsTable, budget: int, generator: Generator
) -> Allocation:
    """The allocation with one layer a choice up and another a choice down, within the budget.

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

    def step(name: str, choice: Choice) -> int:
        return bops.layers[name][choice] - bops.layers[name][allocation[name]]

    room = budget - bops.of(allocation)
    pairs = [
        (taker, giver)
        for taker, more in up.items()
        for giver, less in down.items()
        if taker != giver and step(taker, more) + step(giver, less) <= room
    ]
    if not pairs:
        return Allocation.of(allocation)
    taker, giver = pairs[int(generator.integers(len(pairs)))]
    return Allocation.of({**allocation, taker: up[taker], giver: down[giver]})
