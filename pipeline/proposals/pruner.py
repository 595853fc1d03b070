"""The pruner: Optuna's WilcoxonPruner, whose answers follow from the signs of ranked differences.

SciPy's test takes a millisecond for eight numbers, at each report of each trial. There are few
answers, and each is computed once.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import chain
from math import copysign, isfinite
from typing import cast

import optuna
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import wilcoxon

from pipeline.study.budgets import BudgetSchedule

P_THRESHOLD = 0.1
"""A trial is stopped when a paired test finds it worse than the best at this level (our choice)."""


class Leader:
    """The best trial so far, as a pruner asks a study for it; Optuna's own looks at all of them."""

    direction = StudyDirection.MINIMIZE

    def __init__(self, study: optuna.Study) -> None:
        self._best: FrozenTrial | None = None
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            self.meet(trial)

    @property
    def best_trial(self) -> FrozenTrial:
        """The complete trial of least value that keeps every limit, the earlier of equals."""
        if self._best is None:
            raise ValueError("no trial is complete yet")
        return self._best

    def meet(self, trial: FrozenTrial) -> None:
        """Take a trial that has ended."""
        if trial.state is TrialState.COMPLETE and max(trial.constraints.values(), default=0) <= 0:
            self._best = min(self._best or trial, trial, key=lambda t: (t.value, t.number))


class RankedPruner(WilcoxonPruner):
    """Decides as Optuna's WilcoxonPruner does, and computes each p-value once."""

    def prune(self, study: optuna.Study | Leader, trial: FrozenTrial) -> bool:
        """Return whether the chunks of a trial are worse than the same ones of the best."""
        try:
            best = study.best_trial.intermediate_values
        except ValueError:
            return False
        seen = trial.intermediate_values
        if len(seen) < 2 or not seen.keys() <= best.keys():
            return super().prune(cast("optuna.Study", study), trial)
        if not all(map(isfinite, chain(seen.values(), best.values()))):
            return super().prune(cast("optuna.Study", study), trial)
        if sum(best.values()) / len(best) >= sum(seen.values()) / len(seen):
            return False  # worse by rank, but not by mean
        differences = [value - best[step] for step, value in seen.items()]
        return p_worse(signed_ranks(differences)) < P_THRESHOLD


def signed_ranks(differences: Sequence[float]) -> tuple[float, ...]:
    """Return the ranks of differences by size, each with its sign, in order.

    Equals share their mean rank.

    >>> signed_ranks([0.3, -0.1, 0.0, 0.1])
    (-2.5, 0.0, 2.5, 4.0)
    """
    sizes = sorted(map(abs, differences))

    def rank(size: float) -> float:
        return (bisect_left(sizes, size) + bisect_right(sizes, size) + 1) / 2

    return tuple(sorted(copysign(rank(abs(some)), some) if some else 0.0 for some in differences))


@cache
def p_worse(ranks: tuple[float, ...]) -> float:
    """Return the p-value of Wilcoxon's one-sided test, for which ranks are as good as values."""
    return float(wilcoxon(ranks, alternative="greater", zero_method="zsplit").pvalue)


def pruner_of(schedule: BudgetSchedule) -> BasePruner:
    """Return no pruner for several budgets: a cheap allocation is wanted though it is worse."""
    return RankedPruner(p_threshold=P_THRESHOLD) if schedule.single else NopPruner()
