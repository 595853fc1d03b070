"""What a search has to beat: simpler ways of finding allocations, given as much compute.

Each rival is a study of its own in the same journal, with the same pruner and on the same search
images, so that it is resumed as the search is. Compute is counted in image-forward-passes.
"""

from collections.abc import Sequence
from dataclasses import replace

from igq import Allocation, allocate
from pipeline.cluster import Cluster
from pipeline.comparison import Contender
from pipeline.config import Folder, Request, Sampler
from pipeline.driver import Driver, Snapshot
from pipeline.preparation import Preparation
from pipeline.proposals import Proposals
from pipeline.screen import Screen
from pipeline.study import Origin, Proposal, Trial, best, forwards
from pipeline.tracking import InMemoryTracker

RANDOM, REPAIRED = "random", "repaired"
"""Best of random allocations; the paper's ILP repaired by swaps (LampQ's idea)."""


def search_forwards(trials: Sequence[Trial], preparation: Preparation) -> int:
    """Image-forward-passes of a search: its harms and its trials, random baselines left out.

    Calibration and the reference predictions, which every contender needs, are not counted.
    """
    mine = (trial for trial in trials if trial.proposal.origin is not Origin.RANDOM)
    return preparation.harm_forwards + preparation.predicted_forwards + forwards(mine)


def run_rivals(
    request: Request,
    preparation: Preparation,
    given: int,
    cluster: Cluster,
    screen: Screen,
) -> list[Contender]:
    """Let rivals find their best with the image-forward-passes that the search took, `given`."""
    advance = screen.step("giving rivals as much compute as the search took")
    ilp = allocate(preparation.harm, preparation.bops, preparation.budget)
    drivers: dict[str, Driver] = {}

    def listen(snapshot: Snapshot) -> None:
        spent = sum(forwards(driver.snapshot.ended) for driver in drivers.values())
        advance(min(1.0, spent / (2 * given)))

    def driver(
        name: str, sampler: Sampler, first: list[tuple[Origin, Allocation]], most: int
    ) -> Driver:
        proposals = Proposals(
            Folder(request.out).journal,
            f"{request.space.name}: {name}",
            preparation.bops,
            preparation.budget,
            first,
            sampler,
            request.seed,
        )
        images, least = len(preparation.task.images), preparation.task.chunk_size
        return Driver(
            proposals,
            InMemoryTracker(),  # the tracker has the search's own trials
            trials=1 + most // least,
            images=images,
            budget=preparation.budget,
            most_forwards=most,
            listen=listen,
        )

    drivers[RANDOM] = driver(RANDOM, Sampler.RANDOM, [], given)
    swaps = given - preparation.harm_forwards
    drivers[REPAIRED] = driver(REPAIRED, Sampler.SWAPS, [(Origin.ILP, ilp)], swaps)
    cluster.run(preparation.task, _Alternating(tuple(drivers.values())))
    already = {RANDOM: 0, REPAIRED: preparation.harm_forwards}
    found = []
    for name, run in drivers.items():
        ended = run.snapshot.ended
        if (trial := best(ended, preparation.budget)) is not None:
            found.append(Contender(name, trial, already[name] + forwards(ended)))
    return found


class _Alternating:
    """Several sources as one: their proposals in turn, numbered apart."""

    def __init__(self, sources: tuple[Driver, ...]) -> None:
        self._sources, self._turn = sources, 0

    def next(self) -> Proposal | None:
        for _ in self._sources:
            at = self._turn
            self._turn = (at + 1) % len(self._sources)
            if (proposal := self._sources[at].next()) is not None:
                return replace(proposal, number=proposal.number * len(self._sources) + at)
        return None

    def report(
        self, number: int, chunk: int, kls: Sequence[float], shifts: Sequence[float] = ()
    ) -> bool:
        own, at = divmod(number, len(self._sources))
        return self._sources[at].report(own, chunk, kls, shifts)

    def finish(self, number: int, seconds: float, error: str | None = None) -> None:
        own, at = divmod(number, len(self._sources))
        self._sources[at].finish(own, seconds, error)
