"""Samplers of Optuna's that know that allocations have limits.

Each layer is one parameter, the place of its setting among its settings, so that Optuna sees an
order. Every sampler but `plain` proposes within the limits and nothing twice, and is a function of
(seed, trial number, trials so far): a resumed study goes on as the uninterrupted one would. State
that a sampler keeps between two proposals only saves it from reading trials again.

Layers stand in the order of the forward pass, unless ties span blocks. A proposal near the best so
far changes it from some layer on: a worker need not compute the blocks before that again.

To add a sampler, write a class here, name it in `pipeline.study.request.Sampler`, and list it in
`SAMPLERS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from igq import Allocation, Setting
from igq.allocation import Generator, relaxed_within_all, repair, swap
from igq.costs import Number
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.history import History
from pipeline.proposals.surrogate import learn
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler

REDRAWS = 100
"""Changes of a proposal that was tried already, before it is given up."""
MOST_CHANGES = 6
"""The most layers that one move of the local search changes."""
REACH = 2
"""The most places that a layer of a proposal lies from the best so far."""
LEARNABLE = 8
"""The fewest trials that the surrogate learns from; before, local moves are proposed."""


class WithinLimits(BaseSampler, ABC):
    """Proposes whole allocations, within the limits and never the same one twice."""

    def __init__(self, encoding: Encoding, schedule: BudgetSchedule, seed: int) -> None:
        self.encoding, self.schedule, self._seed = encoding, schedule, seed
        self.history = History(encoding)

    @abstractmethod
    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        """Return an allocation worth trying; it may be over the limits, or an old one."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self.encoding.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose an allocation within the limits that the study has not tried."""
        generator = np.random.default_rng([self._seed, trial.number])
        self.history.update(study)
        budget = self.schedule.of(trial.number)
        limits = self.encoding.limits.with_budget(budget)
        allocation = self.propose(study, trial, generator)
        first = self.first(allocation, budget)
        for _ in range(REDRAWS):
            kept = repair(allocation, limits, generator, first)
            if not self.history.tried(kept):
                break
            first = max(0, first - 1)
            allocation = self.changed(kept, 1, generator, first)
        return self.encoding.encode(kept)

    def first(self, allocation: Allocation, budget: Number) -> int:
        """Return the first layer that may be changed once more, for the limits or to be new."""
        return 0

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Raise an error: all layers are proposed together."""
        raise NotImplementedError(param_name)

    def changed(
        self, allocation: Allocation, layers: int, generator: Generator, first: int = 0
    ) -> Allocation:
        """Return the allocation with some layers, from the `first` on, set to random settings."""
        free = list(allocation)[first:]
        names = generator.choice(free, min(layers, len(free)), replace=False)
        drawn = {
            str(name): self.encoding.settings[name][
                generator.integers(len(self.encoding.settings[name]))
            ]
            for name in names
        }
        return Allocation.of({**allocation, **drawn})


class OptunaSampler(WithinLimits):
    """One of Optuna's own samplers, made anew for each trial, its answers repaired."""

    def __init__(
        self, inner: type[Any], encoding: Encoding, schedule: BudgetSchedule, seed: int
    ) -> None:
        super().__init__(encoding, schedule, seed)
        self._inner = inner

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        inner = self._inner(seed=int(generator.integers(2**31)))
        params = inner.sample_relative(study, trial, dict(self.encoding.distributions))
        return self.encoding.decode({**self.encoding.random(generator), **params})


class LocalSampler(WithinLimits):
    """Changes a few layers of the best allocation so far; the repair changes others."""

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        best = self.history.best(self.schedule.of(trial.number))
        if best is None:
            return self.encoding.decode(self.encoding.random(generator))
        layers = int(generator.integers(1, MOST_CHANGES + 1))
        first = self.from_layer(len(best), generator)
        return self.changed(self.encoding.allocation(best), layers, generator, first)

    def from_layer(self, layers: int, generator: Generator) -> int:
        """Draw the first layer that differs: the later of two draws, as late layers cost less."""
        return int(generator.integers(layers, size=2).max()) if self.encoding.in_order else 0

    def first(self, allocation: Allocation, budget: Number) -> int:
        """Return the first layer that differs from the best so far; 0 if none does."""
        if (best := self.history.best(budget)) is None:
            return 0
        mine = self.encoding.places(self.encoding.encode(allocation))
        return next((i for i, place in enumerate(mine) if place != best[i]), 0)


class SwapsSampler(WithinLimits):
    """Swaps settings between two layers of the best so far, by KL (LampQ)."""

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        budget = self.schedule.of(trial.number)
        best = self.history.least_kl(budget)
        if best is None:
            return self.encoding.decode(self.encoding.random(generator))
        limits = self.encoding.limits.with_budget(budget)
        return swap(self.encoding.allocation(best), limits, generator)


def coarseness(setting: Setting) -> float:
    """Return the feature that a layer's loss is taken to grow with.

    It is 1 / groups, times 4 for every bit less than 4.

    >>> coarseness(Setting(num_groups=8)), coarseness(Setting(4, 3, 8))
    (0.125, 1.5)
    """
    weights = 0.0 if setting.weight_bits is None else 4.0 ** (4 - setting.weight_bits)
    if setting.activation_bits is None and setting.num_groups is None:
        return weights
    bits = 4 if setting.activation_bits is None else setting.activation_bits
    return weights + 4.0 ** (4 - bits) / (setting.num_groups or 1)


class SurrogateSampler(LocalSampler):
    """Takes the best allocation near the best so far for a draw of the effects (Thompson).

    Near: that effects add up is measured for steps of `REACH` places; farther away it fails. Only
    layers from some layer on change.
    """

    def __init__(self, encoding: Encoding, schedule: BudgetSchedule, seed: int) -> None:
        super().__init__(encoding, schedule, seed)
        self._tables = [limit.table for limit in encoding.limits.bounded]
        self._costs = np.stack([encoding.array(table.cost, np.inf) for table in self._tables])
        self._features = encoding.array(lambda name, setting: coarseness(setting), 0.0)

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        budget = self.schedule.of(trial.number)
        best = self.history.best(budget)
        if best is None or self.history.size < LEARNABLE:
            return super().propose(study, trial, generator)
        evidence = self.history.evidence
        features = self._features[np.arange(len(best)), evidence.places]
        effects = learn(features, *evidence.deviations).draw(generator)
        same = np.arange(len(best)) < self.from_layer(len(best), generator)
        steps = np.arange(self._costs.shape[2]) - np.array(best)[:, None]
        near = np.abs(steps) <= np.where(same, 0, REACH)[:, None]
        costs = np.where(near, self._costs, np.inf)
        limits = self.encoding.limits.with_budget(budget).bounded
        rooms = [limit.most - limit.table.fixed for limit in limits]
        loss = effects[:, None] * self._features
        return self.encoding.allocation(relaxed_within_all(loss, costs, rooms).tolist())


Maker = Callable[[Encoding, BudgetSchedule, int], BaseSampler]
"""Makes a sampler from the encoding of allocations, the budgets of proposals and a seed."""

SAMPLERS: Mapping[Sampler, Maker] = {
    Sampler.SURROGATE: SurrogateSampler,
    Sampler.LOCAL: LocalSampler,
    Sampler.SWAPS: SwapsSampler,
    Sampler.TPE: partial(OptunaSampler, TPESampler),
    Sampler.RANDOM: partial(OptunaSampler, RandomSampler),
    Sampler.PLAIN: lambda encoding, schedule, seed: TPESampler(seed=seed),
}
"""Name -> sampler."""
