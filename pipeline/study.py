"""Trials, the study they make up, and the one definition of its best.

A trial is an allocation and what became of it. KLs are in nats, one for each search image seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Protocol, runtime_checkable

from igq import Allocation
from igq.size import MEGABYTE, megabytes


class Origin(StrEnum):
    """Who proposed a trial."""

    UNIFORM = "uniform"
    """A baseline: the same number of groups everywhere, the most that the budget allows."""
    ILP = "ilp"
    """A baseline: the paper's integer linear program over the harm table (Sec. 3.3)."""
    FISHER = "fisher"
    """A baseline: the same program over harms that gradients predict, to second order."""
    RANDOM = "random"
    """A baseline: drawn at random within the budget."""
    SAMPLER = "sampler"
    """Proposed by Optuna from what was seen."""


class State(StrEnum):
    """What became of a trial."""

    COMPLETE = "complete"
    """It saw every search image."""
    PRUNED = "pruned"
    """It was stopped early, because it was clearly no better than the best."""
    OVER_BUDGET = "over_budget"
    """It costs more than the budget allows, or is too large, and was never sent to a worker."""
    FAILED = "failed"
    """It raised an error, or the study was interrupted while it ran."""


@dataclass(frozen=True)
class Proposal:
    """An allocation to try, its BOPs for one image, and bytes of the model where it decides them.

    >>> Proposal(0, Origin.UNIFORM, Allocation.of({"fc": 2}), 21_000, 3_200_000).price
    '2.1e+04 BOPs, 3.2 MB'
    """

    number: int
    origin: Origin
    allocation: Allocation
    bops: int
    size: int | None = None

    @property
    def price(self) -> str:
        """What it takes, in words."""
        size = "" if self.size is None else f", {megabytes(self.size)}"
        return f"{self.bops:.4g} BOPs{size}"

    @property
    def metrics(self) -> dict[str, float]:
        """What it takes, as numbers by name."""
        size = {} if self.size is None else {"size_mb": self.size / MEGABYTE}
        return {"bops": float(self.bops), **size}


@dataclass(frozen=True)
class Trial:
    """A proposal that has ended."""

    proposal: Proposal
    state: State
    kls: tuple[float, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    chunks: tuple[int, ...] = field(default=())
    """How many images each report covered: their running means are the trial's curve."""
    shifts: tuple[float, ...] = ()
    """Mean squared shift of the logits, image by image as `kls`: what the surrogate learns from.
    Empty where it was not measured."""

    @property
    def number(self) -> int:
        """The trial's number in its study, from 0."""
        return self.proposal.number

    @property
    def kl(self) -> float | None:
        """Mean KL over the images it saw; None where it saw none."""
        return fmean(self.kls) if self.kls else None

    @property
    def curve(self) -> tuple[float, ...]:
        """Mean KL after each report."""
        ends = [sum(self.chunks[: i + 1]) for i in range(len(self.chunks))]
        return tuple(fmean(self.kls[:end]) for end in ends)


def best(trials: Iterable[Trial], budget: int) -> Trial | None:
    """The trial with the least KL among those within the budget that saw every image.

    Ties go to the cheaper one, then to the earlier one. None where no trial qualifies.
    """
    return next(iter(completed(trials, budget)), None)


def completed(trials: Iterable[Trial], budget: int) -> list[Trial]:
    """Those within the budget that saw every image, least KL first, of equals the cheaper one."""
    qualified = (t for t in trials if t.state is State.COMPLETE and t.proposal.bops <= budget)
    return sorted(qualified, key=lambda t: (t.kl, t.proposal.bops, t.number))


def forwards(trials: Iterable[Trial]) -> int:
    """Image-forward-passes that trials took: the search images that each of them saw."""
    return sum(len(trial.kls) for trial in trials)


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials that saw every image and that no cheaper one equals, cheapest first."""
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    found: list[Trial] = []
    for trial in sorted(complete, key=lambda t: (t.proposal.bops, t.kl, t.number)):
        if not found or (trial.kl or 0.0) < (found[-1].kl or 0.0):
            found.append(trial)
    return tuple(found)


def knee(points: Sequence[Trial]) -> Trial | None:
    """The point of a front from which more BOPs begin to buy less.

    It is the farthest below the line between the ends, both axes from 0 to 1; None where no point
    lies below it.
    """
    if len(points) < 3:
        return None
    first, last = points[0], points[-1]
    width = last.proposal.bops - first.proposal.bops
    height = (first.kl or 0.0) - (last.kl or 0.0)

    def below(trial: Trial) -> float:
        dearer = (trial.proposal.bops - first.proposal.bops) / width
        return 1 - dearer - ((trial.kl or 0.0) - (last.kl or 0.0)) / height

    found = max(points, key=below)
    return found if below(found) > 0 else None


def best_of(trials: Iterable[Trial], origin: Origin, budget: int) -> Trial | None:
    """The best trial that `origin` proposed."""
    return best((t for t in trials if t.proposal.origin is origin), budget)


@runtime_checkable
class Source(Protocol):
    """Where a cluster gets its work and leaves what came of it; called from one thread."""

    def next(self) -> Proposal | None:
        """The next proposal to evaluate, always within budget; None: there are no more."""

    def report(
        self, number: int, chunk: int, kls: Sequence[float], shifts: Sequence[float] = ()
    ) -> bool:
        """Take the KLs and shifts of the `chunk`-th images (from 0); True: the trial is to stop.

        A trial that lost its worker starts again: the same chunk may be reported twice.
        """

    def finish(self, number: int, seconds: float, error: str | None = None) -> None:
        """Take note that the trial has ended: stopped, having seen every image, or by an error."""
