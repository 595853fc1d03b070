"""The outcome of each fault, as counted: what `make faults` prints in the end."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.study.trials import State, Trial

HEAD = "| fault | asked | finished | lost | doubled | runs in MLflow | best, and evaluated again |"


@dataclass(frozen=True)
class Runs:
    """The runs of a search in MLflow's store."""

    states: Mapping[str, int]
    """Status -> trials."""
    trials: int
    """Different trials among them."""
    left: int
    """Runs that stand there as RUNNING, the search's own among them."""

    @classmethod
    def of(cls, store: Path) -> "Runs":
        """Count the runs in a SQLite store."""
        rows = "SELECT status, value FROM runs JOIN tags USING (run_uuid) WHERE key = 'igq.trial'"
        left = "SELECT count(*) FROM runs WHERE status = 'RUNNING'"
        with closing(sqlite3.connect(store)) as opened:
            found = opened.execute(rows).fetchall()
            (running,) = opened.execute(left).fetchone()
        return cls(Counter(row[0] for row in found), len({row[1] for row in found}), running)

    @property
    def doubled(self) -> int:
        return sum(self.states.values()) - self.trials


@dataclass(frozen=True)
class Outcome:
    """The state of a search after a fault, when all is over."""

    fault: str
    asked: int
    failed: int
    """Trials that were to end with an error."""
    trials: Sequence[Trial]
    runs: Runs
    best: tuple[float, float]
    """KL on the search images as the result has it, and as it is now."""

    @property
    def different(self) -> int:
        return len({(t.proposal.origin, t.proposal.allocation) for t in self.trials})

    @property
    def lost(self) -> int:
        """The trials that are missing in the journal, or in MLflow."""
        return max(self.asked - self.different, self.asked - self.runs.trials)

    @property
    def doubled(self) -> int:
        """The trials that stand more than once in the journal, or in MLflow."""
        return max(len(self.trials) - self.different, self.runs.doubled)

    @property
    def errors(self) -> int:
        return sum(trial.state is State.FAILED for trial in self.trials)

    @property
    def best_holds(self) -> bool:
        shown, found = self.best
        return abs(shown - found) <= 1e-5 * found

    @property
    def row(self) -> str:
        """The outcome as a row of a table."""
        states = ", ".join(f"{count} {name}" for name, count in sorted(self.runs.states.items()))
        states += f", {self.runs.left} left RUNNING" if self.runs.left else ""
        shown, found = self.best
        again = f"{shown:.6f}, {found:.6f}" + ("" if self.best_holds else ": **differs**")
        cells = [self.fault, self.asked, len(self.trials), self.lost, self.doubled, states, again]
        return "| " + " | ".join(map(str, cells)) + " |"

    def check(self) -> None:
        """Check that nothing is lost, doubled or left running, and that the best holds."""
        assert self.lost == 0, self.row
        assert self.doubled == 0, self.row
        assert len(self.trials) == self.asked, self.row
        assert self.runs.left == 0, self.row
        assert self.errors == self.runs.states.get("FAILED", 0) == self.failed, self.row
        assert all(t.started is not None and t.started <= (t.ended or 0) for t in self.trials)
        assert self.best_holds, self.row


OUTCOMES: list[Outcome] = []
"""In the order in which they came."""


def table() -> list[str]:
    """Return the lines of a table of all outcomes."""
    return [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|", *(one.row for one in OUTCOMES)]
