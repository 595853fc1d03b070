"""The worker's side of trials: reports, chunk by chunk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from socket import gethostname
from time import perf_counter

from igq import Observation
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.study.trials import Proposal

MESSAGE_SECONDS = 0.5
"""The work between two messages of a worker; each takes Ray Tune milliseconds (our choice)."""


@dataclass(frozen=True)
class Report:
    """A worker's report after a chunk of a trial: an observation, or the error that ended it."""

    number: int
    """The trial's number in its study."""
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

    def reports(self, proposal: Proposal) -> Iterator[Report]:
        """Evaluate a proposal, chunk by chunk."""
        number, chunk, start = proposal.number, 0, perf_counter()
        try:
            for chunk, observed in enumerate(self.objective.evaluate(proposal.allocation)):
                last = chunk + 1 == self.task.num_chunks
                yield Report(number, chunk, observed, perf_counter() - start, last, node=self.node)
        except Exception as error:
            text, seconds = f"{type(error).__name__}: {error}", perf_counter() - start
            yield Report(number, chunk, Observation(), seconds, True, text, self.node)


def together(reports: Iterable[Report]) -> Iterator[tuple[Report, ...]]:
    """Group a worker's reports into messages, each of about half a second of work.

    Whoever reads them goes through a message in order: a trial that is stopped at a chunk is
    stopped there, though its worker has gone on for less than half a second.
    """
    begun, held = perf_counter(), list[Report]()
    for report in reports:
        held.append(report)
        if perf_counter() - begun >= MESSAGE_SECONDS:
            yield tuple(held)
            begun, held = perf_counter(), []
    if held:
        yield tuple(held)
