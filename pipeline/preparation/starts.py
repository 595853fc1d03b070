"""The first trials of a search, which it is measured against."""

from collections.abc import Set

import numpy as np

from igq import Allocation, Limits, allocate, largest_uniform
from igq.allocation import Generator, random_allocation, uniform_allocations
from pipeline.preparation.prepare import Preparation
from pipeline.proposals import Baselines
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.trials import Origin

RANDOM_TRIALS = 8
"""Random baselines, but no more than a quarter of the trials."""
REDRAWS = 100
"""Draws of a random baseline that was drawn already, before it is taken all the same."""


def baselines(preparation: Preparation, trials: int, seed: int) -> Baselines:
    """Return the uniform allocation, the integer programs' and random ones within the limits."""
    limits = preparation.limits
    generator = np.random.default_rng([seed, len(preparation.layers)])
    first = [(Origin.UNIFORM, largest_uniform(limits)), *_programs(preparation, limits)]
    tried = {allocation for _, allocation in first}
    for _ in range(min(RANDOM_TRIALS, trials // 4)):
        drawn = _new(limits, generator, tried)
        first.append((Origin.RANDOM, drawn))
        tried.add(drawn)
    return first


def front_baselines(preparation: Preparation, schedule: BudgetSchedule, trials: int) -> Baselines:
    """Return uniform allocations in the range of budgets, and the programs' at their costs.

    The most expensive uniform ones, so that these are half of the trials or few more. The programs
    are solved for the space's own budget too, at which a front is compared in the end.
    """
    limits = preparation.limits
    widest = limits.with_budget(schedule.high)
    within = [a for a in uniform_allocations(limits.table) if widest.fits(a)]
    first = _programs(preparation, limits)
    for allocation in within[-max(1, trials // 6) :]:
        first.append((Origin.UNIFORM, allocation))
        if (cost := limits.table.of(allocation)) != limits.budget:
            first.extend(_programs(preparation, limits.with_budget(cost)))
    return first


def _new(limits: Limits, generator: Generator, tried: Set[Allocation]) -> Allocation:
    """Draw an allocation that is not tried already, unless hardly any is left in a small space."""
    for _ in range(REDRAWS):
        if (drawn := random_allocation(limits, generator)) not in tried:
            break
    return drawn


def _programs(preparation: Preparation, limits: Limits) -> list[tuple[Origin, Allocation]]:
    """Solve the integer program for measured sensitivities, and for predicted ones."""
    found = [(Origin.ILP, allocate(preparation.measured.sensitivity, limits))]
    if preparation.predicted is not None:
        found.append((Origin.FISHER, allocate(preparation.predicted.sensitivity, limits)))
    return found
