"""Work in parts, for this process or for the workers of a cluster.

A part's result follows from what all parts share and from its own argument alone, so that it does
not matter who computes it, when, or beside which others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from igq.costs import Number
from igq.layer import Layer
from igq.progress import Progress

WORTH_WORKERS = 10**12
"""Multiplications above which workers save more than their start takes (our choice)."""
Compute = Callable[[Any, Any, str, Progress], Any]
"""A function of everything that all parts share, the part's own argument, device and progress."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part of some work."""

    name: str
    """Tells it from the others."""
    compute: Compute
    """A function of a module: workers import it."""
    argument: Any
    passes: Number
    """Image-forward-passes that take about as long."""
    corrects: bool = False
    """Whether it corrects weights, which takes more memory than the rest."""


@runtime_checkable
class Workers(Protocol):
    """Computes parts of work."""

    def count(self) -> int:
        """Return how many parts are computed at once; a cluster may be asked for it."""

    @property
    def where(self) -> str:
        """The place in words, for the progress of a step."""

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its result as it ends; a part whose worker died runs again.

        Raises:
            ClusterError: the workers cannot be reached, or are lost again and again.
        """


def worth(workers: Workers, passes: Number, layers: Iterable[Layer]) -> bool:
    """Return whether workers save more than their start takes.

    It follows from counts, not from a clock.
    """
    products = sum(layer.tokens * layer.channels * layer.outputs for layer in layers)
    return workers.count() > 1 and passes * products >= WORTH_WORKERS


@dataclass(frozen=True)
class Here:
    """This process, one part after the other.

    >>> def double(shared, argument, device, progress):
    ...     return shared * argument
    >>> parts = [Part("a", double, 3, 1.0), Part("b", double, 4, 1.0)]
    >>> [result for _, result in Here().map(2, parts, print)]
    0.5
    1.0
    [6, 8]
    """

    device: str = "cpu"

    def count(self) -> int:
        """Return 1: one part at a time."""
        return 1

    @property
    def where(self) -> str:
        """The device."""
        return self.device

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its result."""
        total, done = sum(part.passes for part in parts), 0.0
        for part in parts:

            def told(share: float, done: float = done, part: Part = part) -> None:
                progress((done + share * part.passes) / total)

            result = part.compute(shared, part.argument, self.device, told)
            done += part.passes
            progress(done / total)
            yield part, result
