"""Trials: an allocation and its outcome. KLs are in nats, one for each search image seen."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

from igq import Allocation, Observation, Unit
from igq.costs import Number


class Origin(StrEnum):
    """Who proposed a trial."""

    UNIFORM = "uniform"
    """A baseline: the most expensive setting for all layers within the limits."""
    ILP = "ilp"
    """A baseline: the paper's integer linear program over measured sensitivities (Sec. 3.3)."""
    FISHER = "fisher"
    """A baseline: the same program over sensitivities predicted from gradients."""
    RANDOM = "random"
    """A baseline: drawn at random within the limits."""
    SAMPLER = "sampler"
    """Proposed by Optuna from earlier trials."""


class State(StrEnum):
    """The outcome of a trial."""

    COMPLETE = "complete"
    """It saw every search image."""
    PRUNED = "pruned"
    """It was stopped early, because it was clearly no better than the best."""
    OVER_BUDGET = "over_budget"
    """It breaks a limit, and was never sent to a worker."""
    FAILED = "failed"
    """It raised an error, or the study was interrupted while it ran."""


@dataclass(frozen=True)
class Proposal:
    """An allocation to try, layer by layer, and its costs.

    >>> costs = {Unit.BOPS: 21_000, Unit.BYTES: 3_200_000}
    >>> Proposal(0, Origin.UNIFORM, Allocation.of({"fc": 2}), costs).price
    '2.1e+04 BOPs, 3.2 MB'
    """

    number: int
    origin: Origin
    allocation: Allocation
    costs: Mapping[Unit, Number]
    """Unit -> cost, the budget's unit first."""

    @property
    def cost(self) -> Number:
        """The cost in the budget's unit."""
        return next(iter(self.costs.values()))

    @property
    def price(self) -> str:
        """The costs in words."""
        return ", ".join(unit.words(cost) for unit, cost in self.costs.items())

    @property
    def metrics(self) -> dict[str, float]:
        """The costs as metrics by name."""
        return dict(unit.metric(cost) for unit, cost in self.costs.items())


@dataclass(frozen=True)
class Trial:
    """A proposal that has ended.

    >>> proposal = Proposal(0, Origin.UNIFORM, Allocation.of({"fc": 2}), {Unit.BOPS: 21_000})
    >>> trial = Trial(proposal, State.COMPLETE, Observation((0.5, 1.0, 1.5)), chunks=(2, 1))
    >>> trial.kl, trial.curve
    (1.0, (0.75, 1.0))
    """

    proposal: Proposal
    state: State
    observation: Observation = field(default_factory=Observation)
    """The search images that it saw."""
    seconds: float = 0.0
    error: str | None = None
    chunks: tuple[int, ...] = ()
    """How many images each report covered: their running means are the trial's curve."""
    node: str = field(default="", compare=False)
    """The machine that evaluated it, where it is known."""
    ended: float | None = field(default=None, compare=False)
    """Unix time in seconds at which the driver heard of its end, where it is known."""

    @property
    def number(self) -> int:
        """The trial's number in its study, from 0."""
        return self.proposal.number

    @property
    def kl(self) -> float | None:
        """Mean KL over the images it saw; None where it saw none."""
        return self.observation.kl if self.observation.kls else None

    @property
    def started(self) -> float | None:
        """Unix time in seconds at which a worker began it, by the driver's clock."""
        return None if self.ended is None else self.ended - self.seconds

    @property
    def curve(self) -> tuple[float, ...]:
        """Mean KL after each report."""
        ends = [sum(self.chunks[: i + 1]) for i in range(len(self.chunks))]
        return tuple(fmean(self.observation.kls[:end]) for end in ends)


@dataclass(frozen=True)
class Snapshot:
    """The progress of a search."""

    wanted: int
    ended: tuple[Trial, ...]
    running: int
    budget: Number

    @property
    def nodes(self) -> Mapping[str, int]:
        """Machine -> trials that it evaluated, most first."""
        ran = Counter(trial.node for trial in self.ended if trial.node)
        return dict(sorted(ran.items(), key=lambda row: (-row[1], row[0])))

    def count(self, *states: State) -> int:
        """Return how many trials ended in any of these states."""
        return sum(trial.state in states for trial in self.ended)


def passes(trials: Iterable[Trial]) -> int:
    """Return the image-forward-passes of trials: the search images that each of them saw."""
    return sum(len(trial.observation) for trial in trials)
