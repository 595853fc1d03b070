"""The history of a study, as samplers read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from jaxtyping import Bool, Float, Int
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
class _Rows:
    """The observations of trials that saw an image, each in the row of its number.

    Arrays, as every proposal reads every trial; they grow by doubling.
    """

    seen: Bool[np.ndarray, " rows"]
    whole: Bool[np.ndarray, " rows"]
    """The trials that saw every image."""
    costs: Float[np.ndarray, " rows"]
    """In the unit of the budget."""
    kls: Float[np.ndarray, " rows"]
    """Mean over every image."""
    means: Float[np.ndarray, " rows"]
    """Mean of the logarithms."""
    places: Int[np.ndarray, "rows layers"]
    logs: Float[np.ndarray, "rows images"]
    """Logarithm of each image's logit MSE, or of its KL where that was not measured."""

    @classmethod
    def of(cls, rows: int, layers: int, images: int) -> "_Rows":
        """Return rows without a trial."""
        return cls(
            seen=np.zeros(rows, dtype=bool),
            whole=np.zeros(rows, dtype=bool),
            costs=np.full(rows, np.nan),
            kls=np.full(rows, np.nan),
            means=np.full(rows, np.nan),
            places=np.zeros((rows, layers), dtype=int),
            logs=np.full((rows, images), np.nan),
        )

    def fitting(self, rows: int, images: int) -> "_Rows":
        """Return the same with room for so many trials and images."""
        old, images = len(self.seen), max(images, self.logs.shape[1])
        if rows <= old and images == self.logs.shape[1]:
            return self
        grown = _Rows.of(max(rows, 2 * old) if rows > old else old, self.places.shape[1], images)
        for name, values in vars(self).items():
            getattr(grown, name)[tuple(map(slice, values.shape))] = values
        return grown


class History:
    """The ended trials of a study; each is read once."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._open: list[int] = []
        self._read = 0
        self._rows = _Rows.of(0, len(encoding.settings), 0)
        self._tried: set[Key] = set()
        self._noted: set[int] = set()  # the trials whose allocation is among those tried

    def update(self, study: optuna.Study) -> None:
        """Read the trials that have ended since."""
        trials, layers = study.get_trials(deepcopy=False), len(self._encoding.settings)
        unread = [*self._open, *range(self._read, len(trials))]
        self._read, self._open = len(trials), []
        for trial in (trials[number] for number in unread):
            if trial.number not in self._noted and len(trial.params) == layers:
                self._tried.add(self._encoding.places(trial.params))
                self._noted.add(trial.number)
            if not trial.state.is_finished():
                self._open.append(trial.number)
            elif kls := noted_of(trial).get("kls"):
                self._add(trial, np.log(np.array(noted_of(trial).get("shifts") or kls) + SMALLEST))

    def _add(self, trial: optuna.trial.FrozenTrial, logs: Numbers) -> None:
        row = trial.number
        rows = self._rows = self._rows.fitting(max(row + 1, self._read), len(logs))
        rows.seen[row] = True
        rows.costs[row] = self._encoding.limits.table.of(self._encoding.decode(trial.params))
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            rows.whole[row], rows.kls[row] = True, trial.value
        rows.means[row] = logs.mean()
        rows.places[row] = self._encoding.places(trial.params)
        rows.logs[row, : len(logs)] = logs

    def tried(self, allocation: Allocation) -> bool:
        """Return whether a trial has this allocation, ended or not."""
        return self._encoding.places(self._encoding.encode(allocation)) in self._tried

    @property
    def size(self) -> int:
        """The number of trials that saw an image."""
        return int(self._rows.seen.sum())

    @property
    def evidence(self) -> Evidence:
        """Every trial that saw an image, in order."""
        return Evidence(self._rows.places[self._rows.seen], self._rows.logs[self._rows.seen])

    def best(self, budget: Number) -> Key | None:
        """Return the allocation of least mean logarithm within the budget, over whole trials."""
        return self._least(self._rows.means, budget)

    def least_kl(self, budget: Number) -> Key | None:
        """Return the allocation of least KL within the budget, over whole trials."""
        return self._least(self._rows.kls, budget)

    def _least(self, values: Float[np.ndarray, " rows"], budget: Number) -> Key | None:
        """Return the allocation of least value, of equals the one of cheaper first settings."""
        rows = np.flatnonzero(self._rows.whole & (self._rows.costs <= budget))
        if not len(rows):
            return None
        least = rows[values[rows] == values[rows].min()]
        return min(tuple(map(int, self._rows.places[row])) for row in least)
