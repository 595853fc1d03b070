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

    def say(self, text: str) -> None:
        """Tell a fact about what the user brought, a sentence or two."""

    def warn(self, text: str) -> None:
        """Tell what likely is a mistake, so that it is not overlooked."""


class SilentDisplay:
    """Shows nothing."""

    def step(self, name: str) -> Progress:
        return silent

    def trials(self, snapshot: Snapshot) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
