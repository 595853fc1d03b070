"""The first trials of a search, which it is measured against."""

import numpy as np

from igq import Allocation, Limits, allocate, largest_uniform
from igq.allocation import random_allocation, uniform_allocations
from pipeline.preparation.prepare import Preparation
from pipeline.proposals import Baselines
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.trials import Origin

RANDOM_TRIALS = 8
"""Random baselines, but no more than a quarter of the trials."""


def baselines(preparation: Preparation, trials: int, seed: int) -> Baselines:
    """Return the uniform allocation, the integer programs' and random ones within the limits."""
    limits = preparation.limits
    generator = np.random.default_rng([seed, len(preparation.layers)])
    return [
        (Origin.UNIFORM, largest_uniform(limits)),
        *_programs(preparation, limits),
        *(
            (Origin.RANDOM, random_allocation(limits, generator))
            for _ in range(min(RANDOM_TRIALS, trials // 4))
        ),
    ]


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


def _programs(preparation: Preparation, limits: Limits) -> list[tuple[Origin, Allocation]]:
    """Solve the integer program for measured sensitivities, and for predicted ones."""
    found = [(Origin.ILP, allocate(preparation.measured.sensitivity, limits))]
    if preparation.predicted is not None:
        found.append((Origin.FISHER, allocate(preparation.predicted.sensitivity, limits)))
    return found
