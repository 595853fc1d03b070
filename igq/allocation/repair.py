"""Allocations brought within limits by small changes, drawn at random, or swapped."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from igq.allocation.allocation import Allocation
from igq.costs import Limits, Number
from igq.settings import Setting

Generator = np.random.Generator


def random_allocation(limits: Limits, generator: Generator) -> Allocation:
    """Return a random allocation that spends what the limits allow."""
    known = {name: limits.settings(name) for name in limits.names}
    drawn = {
        name: settings[int(generator.integers(len(settings)))] for name, settings in known.items()
    }
    return repair(drawn, limits, generator)


def repair(
    allocation: Mapping[str, Setting], limits: Limits, generator: Generator, first: int = 0
) -> Allocation:
    """Return the allocation brought within the limits, and up to them where it can be.

    While it costs too much, a layer drawn at random takes the nearest cheaper setting that costs
    no more by any limit; then, in random order, layers take the nearest more expensive setting
    that fits. Layers before the `first` stay as they are, unless nothing else brings it within.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.
    """
    limits.check()
    settings = {name: limits.settings(name) for name in limits.names}
    costs = limits.setting_costs
    place = {name: known.index(allocation[name]) for name, known in settings.items()}
    free = list(settings)[first:]
    room = limits.room(allocation)
    below: dict[str, int] = {}
    limit = -1
    while (over := room < 0).any():
        if limit != over.argmax():
            limit = int(over.argmax())
            found = {n: _lower(costs[n], index, limit) for n, index in place.items()}
            below = {n: index for n, index in found.items() if index is not None}
        names = [n for n in free if n in below] or list(below)
        name = names[generator.integers(len(names))]
        room += costs[name][place[name]] - costs[name][below[name]]
        place[name] = below[name]
        lower = _lower(costs[name], place[name], limit)
        if lower is None:
            del below[name]
        else:
            below[name] = lower
    for name in generator.permutation(free):
        more = costs[name][place[name] + 1 :]
        fits = np.flatnonzero((more - costs[name][place[name]] <= room).all(axis=1))
        if len(fits):
            room -= more[fits[0]] - costs[name][place[name]]
            place[name] += 1 + int(fits[0])
    return Allocation.of({name: settings[name][index] for name, index in place.items()})


def _lower(costs: Float[np.ndarray, "settings limits"], index: int, limit: int) -> int | None:
    """Return the nearest place below that costs less by one limit, and no more by any."""
    less = (costs[:index] <= costs[index]).all(axis=1) & (costs[:index] < costs[index])[:, limit]
    return int(np.flatnonzero(less)[-1]) if less.any() else None


def swap(allocation: Mapping[str, Setting], limits: Limits, generator: Generator) -> Allocation:
    """Return the allocation with one layer a setting up and another one down, within all limits.

    The pair is drawn from all such pairs; where there is none, the allocation stays as it is.
    """
    up, down = _neighbours(allocation, limits)
    room = limits.room(allocation).tolist()
    tables = [limit.table.layers for limit in limits.bounded]

    def steps(name: str, setting: Setting) -> list[Number]:
        return [layers[name][setting] - layers[name][allocation[name]] for layers in tables]

    givers = [(name, steps(name, setting)) for name, setting in down.items()]
    pairs = [
        (taker, giver)
        for taker, more in ((name, steps(name, setting)) for name, setting in up.items())
        for giver, less in givers
        if taker != giver and all(m + n <= r for m, n, r in zip(more, less, room, strict=True))
    ]
    if not pairs:
        return Allocation.of(allocation)
    taker, giver = pairs[int(generator.integers(len(pairs)))]
    return Allocation.of({**allocation, taker: up[taker], giver: down[giver]})


def _neighbours(
    allocation: Mapping[str, Setting], limits: Limits
) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """Return each layer's next more expensive and next cheaper setting, where there is one."""
    up, down = {}, {}
    for name in limits.names:
        settings = limits.settings(name)
        place = settings.index(allocation[name])
        if place + 1 < len(settings):
            up[name] = settings[place + 1]
        if place > 0:
            down[name] = settings[place - 1]
    return up, down
