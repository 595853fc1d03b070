"""An overview of a study's journal: how far it is, without its model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from optuna.trial import FrozenTrial, TrialState

from pipeline.proposals.history import noted_of
from pipeline.proposals.journal import reading, study_in
from pipeline.proposals.seal import sealed_part, whole_lines
from pipeline.study.trials import State


@dataclass(frozen=True)
class Overview:
    """The trials of a study, counted; empty before its first one.

    >>> Overview().ended
    0
    """

    states: Mapping[State, int] | None = None
    running: int = 0
    """Proposed and not ended; where the driver is gone, they will be proposed again."""
    best: int | None = None
    """The trial of least KL that saw every image and keeps the limits."""
    best_kl: float | None = None
    nodes: Mapping[str, int] | None = None
    """Machine -> trials that it evaluated."""
    times: tuple[float, ...] = ()
    """Unix times in seconds at which trials ended, in order."""

    @property
    def ended(self) -> int:
        """The number of trials that ended."""
        return sum((self.states or {}).values())


def overview(journal: Path, name: str) -> Overview:
    """Read how far the study of a name is; the journal is only read.

    Trials count as ended within the sealed part alone, as everywhere; those that run lie behind it.

    Raises:
        StudyError: the journal is another study's, or damaged.
    """
    sealed = sealed_part(journal)  # first: what a running search adds since is not missed
    whole = whole_lines(journal)
    if not whole:
        return Overview()

    def trials(lines: bytes) -> list[FrozenTrial]:
        return study_in(lines, journal, name).get_trials(deepcopy=False) if lines else []

    with reading(journal):
        every = trials(whole)
        ended = every if sealed == whole else trials(sealed)
        return _counted(ended, sum(trial.state is TrialState.RUNNING for trial in every))


def _counted(trials: Sequence[FrozenTrial], running: int) -> Overview:
    ended = [trial for trial in trials if trial.state.is_finished() and _state(trial)]
    whole = [t for t in ended if _state(t) is State.COMPLETE and _feasible(t)]
    best = min(whole, key=lambda t: (_kl(t), t.number), default=None)
    return Overview(
        Counter(State(noted_of(trial)["state"]) for trial in ended),
        running,
        None if best is None else best.number,
        None if best is None else _kl(best),
        Counter(node for trial in ended if (node := noted_of(trial).get("node"))),
        tuple(sorted(t.datetime_complete.timestamp() for t in ended if t.datetime_complete)),
    )


def _state(trial: FrozenTrial) -> State | None:
    noted = noted_of(trial).get("state")
    return None if noted is None else State(noted)


def _kl(trial: FrozenTrial) -> float:
    return fmean(noted_of(trial)["kls"])


def _feasible(trial: FrozenTrial) -> bool:
    return all(over <= 0 for over in trial.constraints.values())
