"""Batches: short proposals that a worker is given at once.

Ray Tune takes 10 ms of the driver's processor for whatever it hands out, and 30 ms pass until a
worker has it. A trial of a few milliseconds would mostly wait.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.cluster.evaluator import MESSAGE_SECONDS
from pipeline.study.trials import Proposal

MOST = 16
"""Proposals of a batch: Tune's share is then a tenth of what we compute for each, and with more of
them each is only made with fewer results known (our choice)."""
RECENT = 9
"""The trials whose seconds tell those of the next ones (our choice)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Proposals for one worker, as Tune's configuration of one of its trials.

    Tune copies a configuration several times, and writes all of it into names that nobody reads.
    """

    proposals: tuple[Proposal, ...]

    def __deepcopy__(self, memo: Any) -> "Batch":
        return self

    def __repr__(self) -> str:
        return f"Batch({', '.join(str(proposal.number) for proposal in self.proposals)})"


@dataclass(frozen=True)
class Pace:
    """How many trials have ended, and how fast.

    >>> pace = Pace().after(3.0).after(0.1).after(0.1).after(0.1)  # the first one read the model
    >>> [pace.batch(left, workers=1) for left in (100, 3)]
    [4, 3]
    """

    ended: int = 0
    seconds: tuple[float, ...] = ()
    """Of those that have ended last."""

    def after(self, seconds: float) -> "Pace":
        """Return the pace when one more trial has ended."""
        return Pace(self.ended + 1, (*self.seconds, seconds)[-RECENT:])

    def batch(self, left: int, workers: int) -> int:
        """Return how many of the proposals that are left a worker is given at once.

        As many as end within a message, but no more than its share of those that have ended, so
        that a proposal knows at least half of the trials before it; nor of those left, so that no
        worker has many at the end while others have none: guided self-scheduling (Polychronopoulos
        and Kuck, IEEE Trans. Computers C-36, 1987).
        """
        most = min(MOST, self.ended // workers, left // workers)
        sizes = range(2, most + 1)
        return max((n for n in sizes if n * median(self.seconds) < MESSAGE_SECONDS), default=1)
