"""What to try next: Optuna samplers that know that allocations have a budget.

Each layer is one parameter, the place of its number of groups among the choices, so that Optuna
sees an order. Every sampler but `plain` proposes within the budget and nothing twice, and follows
from (seed, trial number, trials so far): a resumed study goes on as the uninterrupted one would.
What a sampler keeps between two proposals only saves it from reading trials again.

Layers stand in the order of the forward pass, unless ties span blocks. A proposal near the best so
far changes it from some layer on: what comes before, a worker need not compute again.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from igq import Allocation
from igq.settings import Choice, Setting
from pipeline.budget import Budgets, Generator, keep, least_harm_of_all, swap
from pipeline.config import Sampler
from pipeline.memory import Memory, Space
from pipeline.surrogate import learn

REDRAWS = 100
"""How often a proposal that was tried already is changed before it is given up."""
MOST_CHANGES = 6
"""Layers that one move of the local search changes, at most."""
REACH = 2
"""How many places a layer of a proposal lies from the best so far, at most."""
LEARNABLE = 8
"""Trials from which the surrogate learns, at least: fewer are answered by local moves."""


def make_sampler(kind: Sampler, space: Space, budgets: Budgets, seed: int) -> BaseSampler:
    """The sampler that goes by this name."""
    match kind:
        case Sampler.SURROGATE:
            return SurrogateSampler(space, budgets, seed)
        case Sampler.LOCAL:
            return LocalSampler(space, budgets, seed)
        case Sampler.SWAPS:
            return SwapsSampler(space, budgets, seed)
        case Sampler.TPE:
            return Optunas(TPESampler, space, budgets, seed)
        case Sampler.RANDOM:
            return Optunas(RandomSampler, space, budgets, seed)
        case Sampler.PLAIN:
            return TPESampler(seed=seed)


class WithinBudget(BaseSampler, ABC):
    """Proposes whole allocations, within the budget and never the same one twice."""

    def __init__(self, space: Space, budgets: Budgets, seed: int) -> None:
        self.space, self.budgets, self._seed = space, budgets, seed
        self.memory = Memory(space)

    @abstractmethod
    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        """An allocation worth trying; it may be over the budget, or an old one."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self.space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose an allocation within the budget that the study has not tried."""
        generator = np.random.default_rng([self._seed, trial.number])
        self.memory.update(study)
        budget = self.budgets.of(trial.number)
        allocation = self.propose(study, trial, generator)
        first = self.first(allocation, budget)
        for _ in range(REDRAWS):
            kept = keep(allocation, self.space.bops, budget, generator, first)
            if not self.memory.tried(kept):
                break
            first = max(0, first - 1)
            allocation = self.changed(kept, 1, generator, first)
        return self.space.encode(kept)

    def first(self, allocation: Allocation, budget: int) -> int:
        """The first layer that may be changed once more, for the budget or to be new."""
        return 0

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never needed: every layer is proposed together."""
        raise NotImplementedError(param_name)

    def changed(
        self, allocation: Allocation, layers: int, generator: Generator, first: int = 0
    ) -> Allocation:
        """The allocation with some layers, drawn from the `first` on, set to another choice."""
        free = list(allocation)[first:]
        names = generator.choice(free, min(layers, len(free)), replace=False)
        drawn = {
            str(name): self.space.choices[name][generator.integers(len(self.space.choices[name]))]
            for name in names
        }
        return Allocation.of({**allocation, **drawn})


class Optunas(WithinBudget):
    """One of Optuna's own samplers, made anew for each trial."""

    def __init__(self, inner: type[Any], space: Space, budgets: Budgets, seed: int) -> None:
        super().__init__(space, budgets, seed)
        self._inner = inner

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        inner = self._inner(seed=int(generator.integers(2**31)))
        params = inner.sample_relative(study, trial, dict(self.space.distributions))
        return self.space.decode({**self.space.random(generator), **params})


class LocalSampler(WithinBudget):
    """Changes a few layers of the best allocation so far; mending the budget changes others."""

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        best = self.memory.best(self.budgets.of(trial.number))
        if best is None:
            return self.space.decode(self.space.random(generator))
        layers = int(generator.integers(1, MOST_CHANGES + 1))
        first = self.from_layer(len(best), generator)
        return self.changed(self.space.allocation(best), layers, generator, first)

    def from_layer(self, layers: int, generator: Generator) -> int:
        """Where a proposal begins to differ: the later of two draws, for late ones cost less."""
        return int(generator.integers(layers, size=2).max()) if self.space.in_order else 0

    def first(self, allocation: Allocation, budget: int) -> int:
        """The first in which it differs from the best so far; 0 if it is the best."""
        if (best := self.memory.best(budget)) is None:
            return 0
        mine = self.space.places(self.space.encode(allocation))
        return next((i for i, place in enumerate(mine) if place != best[i]), 0)


class SwapsSampler(WithinBudget):
    """Swaps between two layers of the best so far: a swap is kept when the KL falls (LampQ)."""

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        budget = self.budgets.of(trial.number)
        best = self.memory.least_kl(budget)
        if best is None:
            return self.space.decode(self.space.random(generator))
        return swap(self.space.allocation(best), self.space.bops, budget, generator)


def coarseness(choice: Choice) -> float:
    """What a layer's harm is taken to grow with: 1 / groups, times 4 for every bit less than 4.

    >>> coarseness(8), coarseness(Setting(4, 4, 8)), coarseness(Setting(4, 3, 8))
    (0.125, 1.125, 1.5)
    """
    if not isinstance(choice, Setting):
        return 1 / choice
    weights = 0.0 if choice.weight_bits is None else 4.0 ** (4 - choice.weight_bits)
    if choice.activation_bits is None:
        return weights
    return weights + 4.0 ** (4 - choice.activation_bits) / (choice.num_groups or 1)


class SurrogateSampler(LocalSampler):
    """Takes what would be best near the best so far, for worths as they may be (Thompson).

    Near: that the worths add up is measured for steps of `REACH` places; farther away it fails.
    Only from some layer on.
    """

    def __init__(self, space: Space, budgets: Budgets, seed: int) -> None:
        super().__init__(space, budgets, seed)
        tables = [table for table, _ in space.bops.limits(budgets.high)]
        self._costs = np.stack([space.array(table.cost, np.inf) for table in tables])
        self._features = space.array(lambda name, choice: coarseness(choice), 0.0)

    def propose(self, study: optuna.Study, trial: FrozenTrial, generator: Generator) -> Allocation:
        budget = self.budgets.of(trial.number)
        best = self.memory.best(budget)
        if best is None or self.memory.size < LEARNABLE:
            return super().propose(study, trial, generator)
        evidence = self.memory.evidence
        features = self._features[np.arange(len(best)), evidence.places]
        worths = learn(features, *evidence.effects).draw(generator)
        same = np.arange(len(best)) < self.from_layer(len(best), generator)
        steps = np.arange(self._costs.shape[2]) - np.array(best)[:, None]
        near = np.abs(steps) <= np.where(same, 0, REACH)[:, None]
        costs = np.where(near, self._costs, np.inf)
        rooms = [most - table.fixed for table, most in self.space.bops.limits(budget)]
        return self.space.allocation(
            least_harm_of_all(worths[:, None] * self._features, costs, rooms).tolist()
        )
