"""Rivals: simpler ways of finding allocations, given as much compute as the search.

Each rival is a study of its own in the same journal, with the same pruner and on the same search
images, so that it is resumed as the search is. Compute is counted in image-forward-passes.
"""

from collections.abc import Sequence
from dataclasses import replace

from igq import Observation, allocate
from igq.progress import Progress
from pipeline.cluster import Cluster
from pipeline.evaluation.validation import Contender
from pipeline.preparation.prepare import Preparation
from pipeline.proposals import Baselines, Proposals
from pipeline.searching.driver import Driver, Plan
from pipeline.study.best import best
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request, Sampler
from pipeline.study.trials import Origin, Proposal, Snapshot, Trial, passes
from pipeline.tracking import InMemoryTracker

RANDOM, REPAIRED = "random", "repaired"
"""The best of random allocations; the paper's integer program repaired by swaps (LampQ's idea)."""


def search_passes(trials: Sequence[Trial], preparation: Preparation) -> int:
    """Return the passes of a search: its sensitivities and its trials, without random baselines.

    Calibration and the reference predictions, which every contender needs, are not counted.
    """
    mine = (trial for trial in trials if trial.proposal.origin is not Origin.RANDOM)
    return preparation.passes + passes(mine)


def run_rivals(
    request: Request, preparation: Preparation, given: int, cluster: Cluster, display: Display
) -> list[Contender]:
    """Let rivals find their best with `given` image-forward-passes, which the search took."""
    progress = display.step("giving rivals as much compute as the search took")
    ilp = allocate(preparation.measured.sensitivity, preparation.limits)
    spent = {RANDOM: 0, REPAIRED: preparation.measured.passes}
    shown = _Shared(progress, 2 * given)
    first: dict[str, Baselines] = {RANDOM: [], REPAIRED: [(Origin.ILP, ilp)]}
    samplers = {RANDOM: Sampler.RANDOM, REPAIRED: Sampler.SWAPS}
    drivers = {
        name: _driver(
            name, request, preparation, (samplers[name], first[name]), given - spent[name], shown
        )
        for name in (RANDOM, REPAIRED)
    }
    cluster.run(preparation.task, _Alternating(tuple(drivers.values())))
    found = []
    for name, driver in drivers.items():
        ended = driver.snapshot.ended
        if (trial := best(ended, preparation.budget)) is not None:
            found.append(Contender(name, trial, spent[name] + passes(ended)))
    return found


def _driver(
    name: str,
    request: Request,
    preparation: Preparation,
    way: tuple[Sampler, Baselines],
    most: int,
    shown: "_Shared",
) -> Driver:
    """Return the driver of one rival, which may take `most` passes."""
    sampler, first = way
    budget, task = preparation.budget, preparation.task
    proposals = Proposals(
        preparation.study.folder.journal,
        f"{request.space.name}: {name}",
        preparation.limits,
        BudgetSchedule(budget, budget),
        first,
        sampler,
        request.seed,
    )
    plan = Plan(1 + most // task.chunk_size, len(task.images), budget, most)
    return Driver(proposals, InMemoryTracker(), plan, shown.of(name))


class _Shared:
    """The progress of several drivers as one: the passes that they spent of those given."""

    def __init__(self, progress: Progress, given: int) -> None:
        self._progress, self._given = progress, given
        self._spent: dict[str, int] = {}

    def of(self, name: str) -> Display:
        """Return the display of one driver."""
        return _Part(self, name)

    def told(self, name: str, spent: int) -> None:
        """Take the passes that a driver has spent."""
        self._spent[name] = spent
        self._progress(min(1.0, sum(self._spent.values()) / self._given))


class _Part(SilentDisplay):
    def __init__(self, shared: _Shared, name: str) -> None:
        self._shared, self._name = shared, name

    def trials(self, snapshot: Snapshot) -> None:
        self._shared.told(self._name, passes(snapshot.ended))


class _Alternating:
    """Several feeds as one: their proposals in turn, numbered apart."""

    def __init__(self, feeds: tuple[Driver, ...]) -> None:
        self._feeds, self._turn = feeds, 0

    @property
    def left(self) -> int:
        return sum(feed.left for feed in self._feeds)

    def next(self) -> Proposal | None:
        for _ in self._feeds:
            at = self._turn
            self._turn = (at + 1) % len(self._feeds)
            if (proposal := self._feeds[at].next()) is not None:
                return replace(proposal, number=proposal.number * len(self._feeds) + at)
        return None

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        own, at = divmod(number, len(self._feeds))
        return self._feeds[at].report(own, chunk, observation)

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        own, at = divmod(number, len(self._feeds))
        self._feeds[at].finish(own, seconds, error, node)
