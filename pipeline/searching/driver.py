"""The driver's side of a study: gives proposals to workers, and writes their outcomes."""

import time
from dataclasses import dataclass, field
from functools import reduce
from math import ceil
from operator import add

from igq import Observation
from igq.costs import Number
from pipeline.proposals import Proposals
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.trials import Origin, Proposal, Snapshot, State, Trial, passes
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Plan:
    """The extent of a search."""

    trials: int
    """The trials that it is to have, with the baselines."""
    images: int
    """The search images of a trial."""
    budget: Number
    """The budget that the best is shown for."""
    most_passes: int | None = None
    """The image-forward-passes after which no more trials are begun."""


@dataclass
class _Running:
    """A trial that a worker has, and its observations so far, chunk by chunk."""

    proposal: Proposal
    chunks: dict[int, Observation] = field(default_factory=dict)
    stopped: bool = False


class Driver:
    """A feed of Optuna's proposals; every ended trial goes to the tracker, once."""

    def __init__(
        self,
        proposals: Proposals,
        tracker: Tracker,
        plan: Plan,
        display: Display | None = None,
    ) -> None:
        self._proposals, self._tracker, self._plan = proposals, tracker, plan
        self._display = display or SilentDisplay()
        self._running: dict[int, _Running] = {}
        self._ended = list(proposals.ended())
        for trial in self._ended:  # a driver that died may not have got so far
            tracker.record(trial)
        self._display.trials(self.snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """The progress of the search."""
        plan = self._plan
        return Snapshot(plan.trials, tuple(self._ended), len(self._running), plan.budget)

    def next(self) -> Proposal | None:
        """Return the next proposal within the limits; others end here, as pruned."""
        while self._wants_more():
            proposal = self._proposals.ask()
            if self._proposals.allows(proposal):
                self._running[proposal.number] = _Running(proposal)
                self._display.trials(self.snapshot)
                return proposal
            self._end(Trial(proposal, State.OVER_BUDGET))
        return None

    @property
    def left(self) -> int:
        """The most trials that are still to begin, if those that run see every image."""
        plan, running = self._plan, len(self._running)
        trials = plan.trials - len(self._ended) - running
        if plan.most_passes is None:
            return trials
        spare = plan.most_passes - passes(self._ended)
        return min(trials, ceil(spare / plan.images) - running)

    def _wants_more(self) -> bool:
        most = self._plan.most_passes
        if most is not None and passes(self._ended) >= most:
            return False
        return len(self._ended) + len(self._running) < self._plan.trials

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        """Take a chunk's observation; return whether the pruner stops the trial.

        Baselines see every image.
        """
        running = self._running[number]
        if chunk in running.chunks:  # the trial lost its worker and runs again: same numbers
            return running.stopped
        running.chunks[chunk] = observation
        worse = self._proposals.should_stop(number, chunk, observation.kl)
        running.stopped = worse and running.proposal.origin is Origin.SAMPLER
        return running.stopped

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        """Write the end of a trial."""
        running = self._running.pop(number)
        reported = [running.chunks[chunk] for chunk in sorted(running.chunks)]
        seen = reduce(add, reported, Observation())
        if error is not None:
            state = State.FAILED
        else:
            state = State.COMPLETE if len(seen) == self._plan.images else State.PRUNED
        chunks = tuple(map(len, reported))
        now = time.time()
        self._end(Trial(running.proposal, state, seen, seconds, error, chunks, node, now))

    def _end(self, trial: Trial) -> None:
        self._proposals.tell(trial)
        self._ended.append(trial)
        self._tracker.record(trial)
        self._display.trials(self.snapshot)
