"""What trials have shown, as samplers take it: allocations are parameters and places of choices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState

from igq import Allocation, BopsTable
from igq.layers import block_and_place
from igq.settings import Choice
from pipeline.budget import Generator
from pipeline.surrogate import SMALLEST, Evidence, Numbers

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

    @property
    def in_order(self) -> bool:
        """Whether entries stand in the order of the forward pass: no tie spans several blocks."""
        blocks = ({block_and_place(m)[0] for m in tied} for tied in self.bops.members.values())
        return all(len(spanned) == 1 for spanned in blocks)

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
    mean: float
    """Of the logarithms: asked for all trials at each proposal, and so kept."""


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
                logs = np.log(np.array(trial.user_attrs.get("shifts") or kls) + SMALLEST)
                self._ended[trial.number] = _Ended(
                    self._space.places(trial.params),
                    self._space.bops.of(self._space.decode(trial.params)),
                    trial.value if trial.state is TrialState.COMPLETE else None,
                    logs,
                    float(logs.mean()),
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
        return min(whole, key=lambda row: (row.mean, row.places)).places if whole else None

    def least_kl(self, budget: int) -> Key | None:
        """The allocation within the budget of least KL, of those that saw every image."""
        whole = self._whole(budget)
        return min(whole, key=lambda row: (row.kl, row.places)).places if whole else None

    def _whole(self, budget: int) -> list[_Ended]:
        rows = self._ended.values()
        return [row for row in rows if row.kl is not None and row.cost <= budget]
