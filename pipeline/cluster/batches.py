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
KNOWN = 4
"""Trials that must have ended for each one in a batch, were all workers to have as many: a proposal
then knows at least four fifths of those before it (our choice)."""
TUNE_SECONDS = 0.01
"""Seconds of the driver's processor that Tune takes for a batch (report 0052)."""
TUNE_SHARE = 0.1
"""Most of the driver's processor that Tune is to take for all workers' batches (our choice)."""
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

    >>> pace = Pace(ended=40, seconds=(3.0, 0.1, 0.1))  # the first one read the model
    >>> [pace.batch(left, workers=2) for left in (100, 6)]
    [4, 3]
    """

    ended: int = 0
    seconds: tuple[float, ...] = ()
    """Seconds that each of the last few trials took."""

    def after(self, seconds: float) -> "Pace":
        """Return the pace when one more trial has ended."""
        return Pace(self.ended + 1, (*self.seconds, seconds)[-RECENT:])

    def batch(self, left: int, workers: int) -> int:
        """Return how many of the proposals that are left a worker is given at once.

        As many as end within a message, or within the time in which Tune serves all workers with a
        small share of the driver, but no more than its share of a quarter of those that have
        ended, as proposals of one batch do not know one another's results; nor of those left, so
        that no worker has many at the end while others have none: guided self-scheduling
        (Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987). A worker that is alone is
        given one at a time: its study then follows from the seed and not from the clock.
        """
        if workers == 1:
            return 1
        seconds = max(MESSAGE_SECONDS, workers * TUNE_SECONDS / TUNE_SHARE)
        most = min(MOST, self.ended // (KNOWN * workers), left // workers)
        sizes = range(2, most + 1)
        return max((n for n in sizes if n * median(self.seconds) < seconds), default=1)
