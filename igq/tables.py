"""What choices cost: a number for every choice of every layer, of which any allocation is a sum."""

from collections.abc import Mapping
from dataclasses import dataclass

from igq.errors import InvalidArgumentError
from igq.settings import Choice


@dataclass(frozen=True)
class CostTable:
    """`layers` is layer name -> choice -> cost; what the numbers count, a subclass says.

    >>> table = CostTable({"fc1": {1: 8, 2: 9}}, fixed=2)
    >>> table.of({"fc1": 2}), table.minimum, table.choices("fc1")
    (11, 10, [1, 2])
    """

    layers: Mapping[str, Mapping[Choice, int]]
    fixed: int
    """What every allocation pays."""

    def of(self, allocation: Mapping[str, Choice]) -> int:
        """The cost of `allocation`.

        Raises:
            InvalidArgumentError: a layer is missing, unknown, or has a number of groups that is
                not in the table.
        """
        if set(allocation) != set(self.layers):
            odd = sorted(set(allocation) ^ set(self.layers))
            raise InvalidArgumentError(
                f"`allocation` must name each of the {len(self.layers)} layers once, "
                f"but differs in {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}."
            )
        return self.fixed + sum(self.cost(name, g) for name, g in allocation.items())

    def cost(self, name: str, choice: Choice) -> int:
        """What one choice of a layer adds.

        Raises:
            InvalidArgumentError: the layer has no such choice.
        """
        costs = self.layers[name]
        if choice not in costs:
            known = ", ".join(map(str, self.choices(name)))
            raise InvalidArgumentError(
                f"`num_groups` must be one of [{known}], but got {choice} for {name}."
            )
        return costs[choice]

    def choices(self, name: str) -> list[Choice]:
        """The choices of an entry, cheapest first."""
        return sorted(self.layers[name], key=lambda choice: self.layers[name][choice])

    @property
    def minimum(self) -> int:
        """The cost of the cheapest allocation."""
        return self.fixed + sum(min(costs.values()) for costs in self.layers.values())
