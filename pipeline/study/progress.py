"""The progress of a command, as whoever watches it is told."""

from typing import Protocol, runtime_checkable

from igq.progress import Progress, silent
from pipeline.study.trials import Snapshot


@runtime_checkable
class Display(Protocol):
    """Shows the progress of one command."""

    def step(self, name: str) -> Progress:
        """Announce a step; the function returned takes the share of it that is done."""

    def trials(self, snapshot: Snapshot) -> None:
        """Show the progress of the search."""


class SilentDisplay:
    """Shows nothing."""

    def step(self, name: str) -> Progress:
        return silent

    def trials(self, snapshot: Snapshot) -> None:
        pass
