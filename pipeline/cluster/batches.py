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
    """The seconds of the trials that have ended last.

    >>> pace = Pace().after(3.0).after(0.1).after(0.1)  # the first one read the model
    >>> pace.batch(left=100, workers=2)
    4
    >>> pace.batch(left=5, workers=2)
    2
    """

    seconds: tuple[float, ...] = ()

    def after(self, seconds: float) -> "Pace":
        """Return the pace when one more trial has ended."""
        return Pace((*self.seconds, seconds)[-RECENT:])

    def batch(self, left: int, workers: int) -> int:
        """Return how many of the proposals that are left a worker is given at once.

        As many as end within a message, but no more than its share of those left: the batches at
        the end become small, and no worker has many while others have none. This is guided
        self-scheduling (Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987).
        """
        if not self.seconds:
            return 1
        each, most = median(self.seconds), min(MOST, left // workers)
        return max((n for n in range(2, most + 1) if n * each < MESSAGE_SECONDS), default=1)
