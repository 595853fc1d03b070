"""Functions that are told how far a step is, as a share from 0 to 1, and what was found."""

from collections.abc import Callable

Progress = Callable[[float], None]


Tell = Callable[[str], None]
"""A function that is told a fact, in a sentence, that the user should know."""


def untold(text: str) -> None:
    """Tell nobody."""


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
