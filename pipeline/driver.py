"""The driver's side of a study: gives workers proposals, writes down what becomes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pipeline.proposals import Proposals
from pipeline.study import Origin, Proposal, State, Trial, best, forwards
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Snapshot:
    """How far a search is."""

    wanted: int
    ended: tuple[Trial, ...]
    running: int
    budget: int

    def count(self, *states: State) -> int:
        """Ended trials in any of these states."""
        return sum(trial.state in states for trial in self.ended)

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return best(self.ended, self.budget)


@dataclass
class _Running:
    """A trial that a worker has: what it reported so far, chunk by chunk."""

    proposal: Proposal
    chunks: dict[int, tuple[float, ...]] = field(default_factory=dict)
    shifts: dict[int, tuple[float, ...]] = field(default_factory=dict)
    stopped: bool = False


class Driver:
    """A `Source` over Optuna's proposals; every ended trial goes to the tracker, once."""

    def __init__(
        self,
        proposals: Proposals,
        tracker: Tracker,
        trials: int,
        images: int,
        budget: int,
        most_forwards: int | None = None,
        listen: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self._proposals, self._tracker, self._listen = proposals, tracker, listen
        self._trials, self._images, self._budget = trials, images, budget
        self._most_forwards = most_forwards
        self._running: dict[int, _Running] = {}
        self._ended = list(proposals.ended())
        for trial in self._ended:  # a driver that died may not have got so far
            tracker.record(trial)
        self._listen(self.snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """How far the search is."""
        return Snapshot(self._trials, tuple(self._ended), len(self._running), self._budget)

    def next(self) -> Proposal | None:
        """The next proposal within budget; over-budget ones end here, as pruned."""
        while self._wants_more():
            proposal = self._proposals.ask()
            if self._proposals.allows(proposal):
                self._running[proposal.number] = _Running(proposal)
                self._listen(self.snapshot)
                return proposal
            self._end(Trial(proposal, State.OVER_BUDGET))
        return None

    def _wants_more(self) -> bool:
        if self._most_forwards is not None and forwards(self._ended) >= self._most_forwards:
            return False
        return len(self._ended) + len(self._running) < self._trials

    def report(
        self, number: int, chunk: int, kls: Sequence[float], shifts: Sequence[float] = ()
    ) -> bool:
        """Take what a chunk shows; True where Optuna's pruner would stop it. Baselines see all."""
        running = self._running[number]
        if chunk in running.chunks:  # the trial lost its worker and runs again: same numbers
            return running.stopped
        running.chunks[chunk], running.shifts[chunk] = tuple(kls), tuple(shifts)
        worse = self._proposals.should_stop(number, chunk, fmean(kls))
        running.stopped = worse and running.proposal.origin is Origin.SAMPLER
        return running.stopped

    def finish(self, number: int, seconds: float, error: str | None = None) -> None:
        """Write down how a trial ended."""
        running = self._running.pop(number)
        reported = [running.chunks[chunk] for chunk in sorted(running.chunks)]
        kls = tuple(kl for chunk in reported for kl in chunk)
        if error is not None:
            state = State.FAILED
        else:
            state = State.COMPLETE if len(kls) == self._images else State.PRUNED
        self._end(
            Trial(
                running.proposal,
                state,
                kls=kls,
                seconds=seconds,
                error=error,
                chunks=tuple(len(chunk) for chunk in reported),
                shifts=tuple(s for chunk in sorted(running.shifts) for s in running.shifts[chunk]),
            )
        )

    def _end(self, trial: Trial) -> None:
        self._proposals.tell(trial)
        self._ended.append(trial)
        self._tracker.record(trial)
        self._listen(self.snapshot)
