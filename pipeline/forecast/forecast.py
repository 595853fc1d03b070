"""The forecast of a search as a value: everything that `igq search --plan` prints."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import log10
from typing import Any

from igq import Limits
from igq.costs import Number
from pipeline.forecast.resources import Resources
from pipeline.forecast.work import Step, Work


@dataclass(frozen=True)
class Choices:
    """The part of a model that a search chooses."""

    layers: int
    """All quantized activations of the model."""
    searched: int
    """The layers, or ties of layers, that a setting is chosen for."""
    kinds: Mapping[str, int]
    """Kind -> how many layers of the model are of it."""
    settings: tuple[str, ...]
    """Every setting that some layer chooses from, such as 8 or w4a4g8."""
    allocations_log10: float
    """The logarithm of how many allocations there are, whatever they cost."""

    @classmethod
    def of(cls, work: Work) -> "Choices":
        """Return the choices of a search."""
        rows = work.limits.table.layers
        named = {setting: str(setting) for row in rows.values() for setting in row}
        return cls(
            layers=len(work.layers),
            searched=len(rows),
            kinds=dict(Counter(layer.kind.value for layer in work.layers)),
            settings=tuple(named.values()),
            allocations_log10=sum(log10(len(row)) for row in rows.values()),
        )


@dataclass(frozen=True)
class Workers:
    """The processes that trials run in."""

    count: int
    threads: int
    """Threads of each."""
    cluster: str | None
    """The address of a Ray cluster; None: Ray is started on this machine."""
    at_once: int
    """Trials that run at once without sharing a core."""
    held: bool = False
    """Whether memory, not cores, allows no more."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Machine of the cluster -> the workers that it has room for now."""


@dataclass(frozen=True)
class Drawn:
    """The images of a purpose: where they come from, and how many are drawn."""

    source: str
    images: int


@dataclass(frozen=True)
class Forecast:
    """The needs of a search, before it starts. Seconds, memory and disk are estimates."""

    space: str
    model: str
    weights: str
    bits: str
    """Bits of weights and activations, such as W4 A4."""
    choices: Choices
    budget: str
    limits: Mapping[str, Number]
    """Unit -> the most that an allocation may cost."""
    images: Mapping[str, Drawn]
    """Purpose -> images."""
    steps: tuple[Step, ...]
    compiled: bool
    """Whether blocks are compiled, whose time is not tried but estimated."""
    studies: int
    """Studies of this kind that run one after the other, each with a seed of its own."""
    ended: int
    """Trials that a resumed study has already."""
    workers: Workers
    resources: Resources
    places: Mapping[str, str]
    """Name of a thing that is written -> where."""
    notes: tuple[str, ...] = ()
    """Facts about what the user brought, a sentence each."""

    @property
    def passes(self) -> int:
        """The most image-forward-passes of all studies."""
        return self.studies * sum(step.passes for step in self.steps)

    @property
    def seconds(self) -> float:
        """About how long all studies take."""
        return self.studies * sum(step.seconds for step in self.steps)

    def json(self) -> dict[str, Any]:
        """Return the forecast as plain data, with the sums."""
        return {**asdict(self), "passes": self.passes, "seconds": self.seconds}


def limits_in_words(limits: Limits) -> dict[str, Number]:
    """Return unit -> the most that an allocation may cost, where that is limited."""
    return {limit.table.unit.value: limit.most for limit in limits.bounded}
