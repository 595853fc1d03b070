"""Progress of one step: a function that is told the share that is done, from 0 to 1."""

from collections.abc import Callable

Progress = Callable[[float], None]


def silent(share: float) -> None:
    """Tell nobody."""


def part(progress: Progress, number: int, parts: int) -> Progress:
    """Return the progress of one of several equal parts.

    >>> part(print, 1, 4)(0.5)
    0.375
    """

    def advance(share: float) -> None:
        progress((number + share) / parts)

    return advance
