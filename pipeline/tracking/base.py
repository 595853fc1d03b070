"""Trackers: they keep a study and its trials where people look at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from igq import Unit
from igq.costs import Number
from pipeline.study.trials import Trial

Metrics = Mapping[str, float]
Tags = Mapping[str, str]
Tables = Mapping[str, Any]
"""File name -> plain data, as JSON holds it."""
Files = Sequence[Path]


@dataclass(frozen=True)
class Input:
    """Images that a study read, by what they were for."""

    purpose: str
    """`calibration`, `search`, `validation` or `final`."""
    source: str
    """Where they came from."""
    digest: str
    """A hash of their values."""
    images: int


@dataclass(frozen=True)
class StudyRun:
    """A study as its run shows it; `key` tells it from every other."""

    name: str
    key: str
    params: Mapping[str, str | int | float]
    budget: Number
    limits: Mapping[Unit, Number] = field(default_factory=dict)
    """Unit -> the most that a trial may cost."""
    inputs: Sequence[Input] = ()
    system: Mapping[str, str] = field(default_factory=dict)
    """The machine and the source that the study runs on."""
    budget_name: str = "budget_bops"
    """The name of its parameter, which has the unit."""


@runtime_checkable
class Tracker(Protocol):
    """Keeps a study and its trials, and says where; any call may raise a TrackingError."""

    def start(self, study: StudyRun) -> None:
        """Open a study, or open it again: its trials stay."""

    def record(self, trial: Trial) -> None:
        """Keep an ended trial, once."""

    def finish(self, metrics: Metrics, tags: Tags, tables: Tables, files: Files) -> None:
        """Wait until all is kept, and close the study with its results."""

    def interrupt(self) -> None:
        """Wait until all is kept, and close a study that is open without results."""

    @property
    def location(self) -> str:
        """Where the study is kept."""


class InMemoryTracker:
    """A tracker that forgets with its process, for tests and dry runs.

    >>> InMemoryTracker().location
    'memory'
    """

    def __init__(self) -> None:
        self.study: StudyRun | None = None
        self.status: str | None = None
        self.trials: dict[int, Trial] = {}
        self.results: tuple[Metrics, Tags, Tables, Files] | None = None

    def start(self, study: StudyRun) -> None:
        if self.study is None or self.study.key != study.key:
            self.study, self.trials, self.results = study, {}, None
        self.status = "RUNNING"

    def record(self, trial: Trial) -> None:
        self.trials.setdefault(trial.number, trial)

    def finish(self, metrics: Metrics, tags: Tags, tables: Tables, files: Files) -> None:
        self.results, self.status = (metrics, tags, tables, files), "FINISHED"

    def interrupt(self) -> None:
        if self.status == "RUNNING":
            self.status = "KILLED"

    @property
    def location(self) -> str:
        return "memory"
