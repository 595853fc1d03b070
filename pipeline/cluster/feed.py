"""The feed of proposals that a cluster evaluates."""

from typing import Protocol, runtime_checkable

from igq import Observation
from pipeline.study.trials import Proposal


@runtime_checkable
class ProposalFeed(Protocol):
    """Gives proposals to a cluster, and takes its reports. One thread alone calls it."""

    @property
    def left(self) -> int:
        """The most proposals that are still to come, if those under way see every image."""

    def next(self) -> Proposal | None:
        """Return the next proposal to evaluate; None: there are no more."""

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        """Take the observation of a chunk of images; return whether the trial is to stop."""

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        """Take the end of a trial: all chunks were seen, it was stopped, or it failed.

        `node` is the host that evaluated it.
        """
