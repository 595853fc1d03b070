"""Clusters: places where trials run. This process is the smallest."""

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from pipeline.cluster.evaluator import Evaluator, Report
from pipeline.cluster.feed import ProposalFeed
from pipeline.cluster.placement import WorkerMemory
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Here, Workers


@runtime_checkable
class Cluster(Workers, Protocol):
    """Evaluates the proposals of a feed, and computes work in parts."""

    def check(self) -> None:
        """Refuse, before any work, workers that `run` could not reach.

        Raises:
            ClusterError: the workers cannot be reached.
        """

    @property
    def workers_here(self) -> int:
        """The fewest workers that this machine must hold; 0 where others do the work."""

    def holding(self, memory: WorkerMemory, left: int | None) -> Self:
        """Return the cluster with no more workers than fit into memory; a number given stays.

        `left` are the bytes that this machine has for workers; None where it does not tell.

        Raises:
            ClusterError: no machine of the cluster holds one, or it cannot be reached.
        """

    def run(self, task: Task, feed: ProposalFeed) -> None:
        """Evaluate proposals until there are no more; only this thread calls the feed.

        A trial's error is its outcome; an error of the feed ends the run and is raised here.

        Raises:
            ClusterError: the workers cannot be reached or started.
            KeyboardInterrupt: the run was interrupted; the trials under way never finish.
        """


@dataclass(frozen=True)
class InProcess(Here):
    """One trial after the other, in this process and without Ray.

    >>> InProcess().device
    'cpu'
    """

    def check(self) -> None:
        """Return at once: there is nothing to reach."""

    @property
    def workers_here(self) -> int:
        """This process works by itself."""
        return 1

    def holding(self, memory: WorkerMemory, left: int | None) -> Self:
        """Return the same: there is one trial at a time."""
        return self

    def run(self, task: Task, feed: ProposalFeed) -> None:
        """Evaluate proposals one by one until there are no more."""
        evaluator = Evaluator(task, self.device)
        while (proposal := feed.next()) is not None:
            for report in evaluator.reports(proposal):
                if pass_on(feed, report):
                    break


def pass_on(feed: ProposalFeed, report: Report) -> bool:
    """Hand a report to the feed; return whether the trial has ended with it."""
    stop = report.error is None and feed.report(report.number, report.chunk, report.observation)
    if stop or report.last:
        feed.finish(report.number, report.seconds, report.error, report.node)
    return stop or report.last
