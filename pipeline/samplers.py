"""What to try next: Optuna samplers that know that allocations have a budget.

Each layer is one parameter, the place of its number of groups among the choices, so that Optuna
sees an order. Every sampler but `plain` proposes within the budget and nothing twice, and follows
from (seed, trial number, trials so far): a resumed study goes on as the uninterrupted one would.
What a sampler keeps between two proposals only saves it from reading trials again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from igq import Allocation, BopsTable
from igq.settings import Choice, Setting
from pipeline.budget import Budgets, Generator, keep, least_harm_of_all, swap
from pipeline.config import Sampler
from pipeline.surrogate import SMALLEST, Evidence, Numbers, learn

REDRAWS = 100
"""How often a proposal that was tried already is changed before it is given up."""
MOST_CHANGES = 6
"""Layers that one move of the local search changes, at most."""
REACH = 2
"""How many places a layer of a proposal lies from the best so far, at most."""
LEARNABLE = 8
"""Trials from which the surrogate learns, at least: fewer are answered by local moves."""

Key = tuple[int, ...]
"""An allocation as the places of its layers' choices, in order."""


class Space:
    """Allocations as Optuna's parameters and back."""

    def __init__(self, bops: BopsTable) -> None:
        self.bops = bops
        self.choices = {name: bops.choices(name) for name in bops.layers}
        self.distributions: Mapping[str, BaseDistribution] = {
            name: IntDistribution(0, len(choices) - 1) for name, choices in self.choices.items()
        }

    def encode(self, allocation: Mapping[str, Choice]) -> dict[str, int]:
        """Parameters of an allocation."""
        return {name: self.choices[name].index(choice) for name, choice in allocation.items()}

    def decode(self, params: Mapping[str, Any]) -> Allocation:
        """The allocation that parameters stand for."""
        return Allocation.of({name: self.choices[name][params[name]] for name in self.choices})

    def of_layers(self, allocation: Allocation) -> Allocation:
        """The allocation layer by layer: what is tied is chosen once."""
        return Allocation.of(self.bops.expand(allocation))

    def allocation(self, places: Sequence[int]) -> Allocation:
        """The allocation with these places of the layers' choices, in order."""
        return self.decode(dict(zip(self.choices, places, strict=True)))

    def random(self, generator: Generator) -> dict[str, int]:
        """Any parameters."""
        return {name: int(generator.integers(len(c))) for name, c in self.choices.items()}

    def places(self, params: Mapping[str, Any]) -> Key:
        """Parameters in the order of the layers."""
        return tuple(params[name] for name in self.choices)

    def array(self, of: Callable[[str, Choice], float], absent: float) -> Numbers:
        """(layers, choices): a number for each, `absent` where there is none."""
        most = max(len(choices) for choices in self.choices.values())
        rows = [[of(name, c) for c in choices] for name, choices in self.choices.items()]
        return np.array([row + [absent] * (most - len(row)) for row in rows], dtype=float)


@dataclass(frozen=True, eq=False)
class _Ended:
    """What a trial has shown."""

    places: Key
    cost: int
    """In BOPs."""
    kl: float | None
    """Mean over every image; None where it did not see all."""
    logs: Numbers
    """Logarithm of the shift of each image that it saw, or of its KL where none was measured."""


class Memory:
    """What the trials of a study have shown; each is read once, when it has ended."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._open: list[int] = []
        self._read = 0
        self._ended: dict[int, _Ended] = {}
        self._tried: set[Key] = set()

    def update(self, study: optuna.Study) -> None:
        """Read what has changed."""
        trials = study.get_trials(deepcopy=False)
        unread = [*self._open, *range(self._read, len(trials))]
        self._read, self._open = len(trials), []
        for trial in (trials[number] for number in unread):
            if len(trial.params) == len(self._space.choices):
                self._tried.add(self._space.places(trial.params))
            if not trial.state.is_finished():
                self._open.append(trial.number)
            elif kls := trial.user_attrs.get("kls"):
                self._ended[trial.number] = _Ended(
                    self._space.places(trial.params),
                    self._space.bops.of(self._space.decode(trial.params)),
                    trial.value if trial.state is TrialState.COMPLETE else None,
                    np.log(np.array(trial.user_attrs.get("shifts") or kls) + SMALLEST),
                )

    def tried(self, allocation: Allocation) -> bool:
        """Whether a trial has this allocation, ended or not."""
        return self._space.places(self._space.encode(allocation)) in self._tried

    @property
    def size(self) -> int:
        """Trials that saw an image."""
        return len(self._ended)

    @property
    def evidence(self) -> Evidence:
        """Every trial that saw an image, in order."""
        rows = [self._ended[number] for number in sorted(self._ended)]
        return Evidence.of([row.places for row in rows], [row.logs for row in rows])

    def best(self, budget: int) -> Key | None:
        """The allocation within the budget that shifts least, of those that saw every image."""
        whole = self._whole(budget)
        return min(whole, key=lambda row: (row.logs.mean(), row.places)).places if whole else None

    def least_kl(self, budget: int) -> Key | None:
        """The allocation within the budget of least KL, of those that saw every image."""
        whole = self._whole(budget)
        return min(whole, key=lambda row: (row.kl, row.places)).places if whole else None

    def _whole(self, budget: int) -> list[_Ended]:
        rows = self._ended.values()
        return [row for row in rows if row.kl is not None and row.cost <= budget]


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
        for _ in range(REDRAWS):
            kept = keep(allocation, self.space.bops, budget, generator)
            if not self.memory.tried(kept):
                break
            allocation = self.changed(kept, 1, generator)
        return self.space.encode(kept)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never needed: every layer is proposed together."""
        raise NotImplementedError(param_name)

    def changed(self, allocation: Allocation, layers: int, generator: Generator) -> Allocation:
        """The allocation with some layers, drawn at random, set to another choice."""
        names = generator.choice(list(allocation), min(layers, len(allocation)), replace=False)
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
        return self.changed(self.space.allocation(best), layers, generator)


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
        steps = np.arange(self._costs.shape[2]) - np.array(best)[:, None]
        costs = np.where(np.abs(steps) <= REACH, self._costs, np.inf)
        rooms = [most - table.fixed for table, most in self.space.bops.limits(budget)]
        return self.space.allocation(
            least_harm_of_all(worths[:, None] * self._features, costs, rooms).tolist()
        )
