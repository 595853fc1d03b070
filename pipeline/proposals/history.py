"""The history of a study, as samplers read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from igq import Allocation
from igq.costs import Number
from pipeline.proposals.encoding import Encoding, Key
from pipeline.proposals.surrogate import SMALLEST, Evidence, Numbers

END = "end"
"""The attribute that holds all that is noted of a trial's end: one line of the journal."""


def noted_of(trial: optuna.trial.FrozenTrial) -> Mapping[str, Any]:
    """Return what is noted of a trial; studies of before note each part by itself."""
    end = trial.user_attrs.get(END)
    return trial.user_attrs if end is None else {**trial.user_attrs, **end}


@dataclass(frozen=True, eq=False)
class _Ended:
    """The observations of a trial."""

    places: Key
    cost: Number
    """In the unit of the budget."""
    kl: float | None
    """Mean over every image; None where it did not see all."""
    logs: Numbers
    """Logarithm of each image's logit MSE, or of its KL where that was not measured."""
    mean: float
    """Mean of `logs`, cached because every proposal reads it for every trial."""


class History:
    """The ended trials of a study; each is read once."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._open: list[int] = []
        self._read = 0
        self._ended: dict[int, _Ended] = {}
        self._tried: set[Key] = set()

    def update(self, study: optuna.Study) -> None:
        """Read the trials that have ended since."""
        trials = study.get_trials(deepcopy=False)
        unread = [*self._open, *range(self._read, len(trials))]
        self._read, self._open = len(trials), []
        for trial in (trials[number] for number in unread):
            if len(trial.params) == len(self._encoding.settings):
                self._tried.add(self._encoding.places(trial.params))
            if not trial.state.is_finished():
                self._open.append(trial.number)
            elif kls := noted_of(trial).get("kls"):
                logs = np.log(np.array(noted_of(trial).get("shifts") or kls) + SMALLEST)
                self._ended[trial.number] = _Ended(
                    self._encoding.places(trial.params),
                    self._encoding.limits.table.of(self._encoding.decode(trial.params)),
                    trial.value if trial.state is TrialState.COMPLETE else None,
                    logs,
                    float(logs.mean()),
                )

    def tried(self, allocation: Allocation) -> bool:
        """Return whether a trial has this allocation, ended or not."""
        return self._encoding.places(self._encoding.encode(allocation)) in self._tried

    @property
    def size(self) -> int:
        """The number of trials that saw an image."""
        return len(self._ended)

    @property
    def evidence(self) -> Evidence:
        """Every trial that saw an image, in order."""
        rows = [self._ended[number] for number in sorted(self._ended)]
        return Evidence.of([row.places for row in rows], [row.logs for row in rows])

    def best(self, budget: Number) -> Key | None:
        """Return the allocation of least mean logarithm within the budget, over whole trials."""
        whole = self._whole(budget)
        return min(whole, key=lambda row: (row.mean, row.places)).places if whole else None

    def least_kl(self, budget: Number) -> Key | None:
        """Return the allocation of least KL within the budget, over whole trials."""
        whole = self._whole(budget)
        return min(whole, key=lambda row: (row.kl, row.places)).places if whole else None

    def _whole(self, budget: Number) -> list[_Ended]:
        rows = self._ended.values()
        return [row for row in rows if row.kl is not None and row.cost <= budget]
