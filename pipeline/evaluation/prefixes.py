"""Activations that later trials can start from."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from torch import Tensor


class Prefixes:
    """Activations between two steps of the forward pass, the latest used ones up to a size.

    Two trials that agree in all layers before a step have the same activation there.
    """

    def __init__(self, memory: int) -> None:
        self._memory, self._bytes = memory, 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def last(self, keys: Iterable[Hashable]) -> tuple[int, Tensor] | None:
        """Return the place of the last key that an activation is kept under, and the activation.

        Activations of the keys before it count as used too: the next trial may need them.
        """
        found = None
        for place, key in enumerate(keys):
            if key in self._kept:
                self._kept.move_to_end(key)
                found = place, self._kept[key]
        return found

    def keep(self, key: Hashable, x: Tensor) -> None:
        """Keep an activation, and drop those that were not used for longest."""
        if key not in self._kept:
            self._kept[key] = x
            self._bytes += x.nbytes
        while self._bytes > self._memory:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
