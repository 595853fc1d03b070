"""The worker's side of a trial: reports, chunk by chunk."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from socket import gethostname
from time import perf_counter

from igq import Observation, Setting
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task

MESSAGE_SECONDS = 0.5
"""The work between two messages of a worker; each takes Ray Tune milliseconds (our choice)."""


@dataclass(frozen=True)
class Report:
    """A worker's report after a chunk of a trial: an observation, or the error that ended it."""

    chunk: int
    observation: Observation
    seconds: float
    """Seconds since the trial began."""
    last: bool
    error: str | None = None
    node: str = ""
    """The name of the worker's machine."""


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Runs trials on a device; an error is a trial's last report, never an exception."""

    task: Task
    device: str
    node: str = field(default_factory=gethostname)
    """The name of the machine that it runs on."""

    @cached_property
    def objective(self) -> Objective:
        """The objective, made by the first trial: if that fails, the trial reports why."""
        return Objective(self.task, self.device)

    def reports(self, allocation: Mapping[str, Setting]) -> Iterator[Report]:
        """Evaluate an allocation, chunk by chunk."""
        chunk, start = 0, perf_counter()
        try:
            for chunk, observed in enumerate(self.objective.evaluate(allocation)):
                last = chunk + 1 == self.task.num_chunks
                yield Report(chunk, observed, perf_counter() - start, last, node=self.node)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield Report(chunk, Observation(), perf_counter() - start, True, text, self.node)


def together(reports: Iterator[Report]) -> Iterator[tuple[Report, ...]]:
    """Group a trial's reports into messages, each of about half a second of work.

    Whoever reads them goes through a message in order: a trial that is stopped at a chunk is
    stopped there, though its worker has gone on for less than half a second.
    """
    begun, held = perf_counter(), list[Report]()
    for report in reports:
        held.append(report)
        if report.last or perf_counter() - begun >= MESSAGE_SECONDS:
            yield tuple(held)
            begun, held = perf_counter(), []
