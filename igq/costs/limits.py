"""The most that an allocation may cost, in any number of units."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

import numpy as np
from jaxtyping import Float

from igq.costs.table import CostTable, Number, Unit
from igq.costs.ties import Ties
from igq.errors import InfeasibleBudgetError, InvalidArgumentError
from igq.settings import Setting


@dataclass(frozen=True)
class Limit:
    """A table and the most that an allocation may cost by it; infinity where it is only told.

    >>> Limit(CostTable(Unit.BYTES, {}, fixed=8)).most
    inf
    """

    table: CostTable
    most: Number = inf


@dataclass(frozen=True)
class Limits:
    """All limits of a search. The first is the budget: settings are ordered by its costs.

    >>> two, four = Setting(num_groups=2), Setting(num_groups=4)
    >>> limits = CostTable(Unit.BOPS, {"fc1": {two: 8, four: 9}}, fixed=2).limit(10)
    >>> limits.fits({"fc1": two}), limits.fits({"fc1": four}), limits.costs({"fc1": four})
    (True, False, {<Unit.BOPS: 'bops'>: 11})
    """

    limits: tuple[Limit, ...]
    ties: Ties = field(default_factory=Ties)
    """The layers that share a setting."""

    def __post_init__(self) -> None:
        for limit in self.limits[1:]:
            for name, costs in limit.table.layers.items():
                if costs[(cheapest := self.settings(name)[0])] > min(costs.values()):
                    raise InvalidArgumentError(
                        f"`{limit.table.unit}` must be least for the setting of a layer that the "
                        f"budget's table has as its cheapest, but got {costs[cheapest]} for {name} "
                        f"with {cheapest}."
                    )

    @property
    def table(self) -> CostTable:
        """The table of the budget."""
        return self.limits[0].table

    @property
    def budget(self) -> Number:
        """The most that an allocation may cost by the first table."""
        return self.limits[0].most

    def in_unit(self, unit: Unit) -> CostTable | None:
        """Return the table of a unit; None where there is none."""
        return next((x.table for x in self.limits if x.table.unit is unit), None)

    def overhead(self, costs: Mapping[Unit, Number]) -> float:
        """Return the share of BOPs that grouping adds, by the costs of an allocation.

        Raises:
            InvalidArgumentError: there is no table of BOPs.
        """
        table = self.in_unit(Unit.BOPS)
        if table is None:
            raise InvalidArgumentError("overhead must be one of BOPs, of which there is no table.")
        return table.overhead(costs[Unit.BOPS])

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a setting is chosen for, in order."""
        return tuple(self.table.layers)

    @property
    def bounded(self) -> tuple[Limit, ...]:
        """The limits that an allocation can break."""
        return tuple(limit for limit in self.limits if limit.most < inf)

    def settings(self, name: str) -> list[Setting]:
        """Return the settings to choose from, cheapest first."""
        return self._settings[name]

    @cached_property
    def _settings(self) -> dict[str, list[Setting]]:
        return {name: self.table.settings(name) for name in self.names}

    @cached_property
    def setting_costs(self) -> Mapping[str, Float[np.ndarray, "settings limits"]]:
        """The costs of each layer's settings, cheapest first, by each limit that can be broken."""
        tables = [limit.table for limit in self.bounded]
        return {
            name: np.array(
                [[x.layers[name][s] for x in tables] for s in self.settings(name)], float
            )
            for name in self.names
        }

    def costs(self, allocation: Mapping[str, Setting]) -> dict[Unit, Number]:
        """Return the cost of an allocation in each unit."""
        return {limit.table.unit: limit.table.of(allocation) for limit in self.limits}

    def fits(self, allocation: Mapping[str, Setting]) -> bool:
        """Return whether an allocation keeps every limit."""
        return all(limit.table.of(allocation) <= limit.most for limit in self.limits)

    def room(self, allocation: Mapping[str, Setting]) -> Float[np.ndarray, " limits"]:
        """Return how far an allocation lies below each bounded limit; negative where above."""
        return np.array([x.most - x.table.of(allocation) for x in self.bounded], dtype=float)

    def with_budget(self, most: Number) -> "Limits":
        """Return the same limits with another budget."""
        if most == self.budget:
            return self
        first = replace(self.limits[0], most=most)
        return replace(self, limits=(first, *self.limits[1:]))

    def expand(self, allocation: Mapping[str, Setting]) -> dict[str, Setting]:
        """Return an allocation as one of the model's layers: tied layers share a setting."""
        return self.ties.expand(allocation)

    def check(self) -> "Limits":
        """Return the limits if at least one allocation keeps them.

        Raises:
            InfeasibleBudgetError: even the cheapest allocation costs more.

        >>> table = CostTable(Unit.BOPS, {"fc1": {Setting(num_groups=1): 8}}, fixed=2)
        >>> table.limit(10).check().budget
        10
        """
        for limit in self.bounded:
            least, unit = limit.table.minimum, limit.table.unit
            if limit.most < least:
                raise InfeasibleBudgetError(_infeasible(unit, least, limit.most))
        return self


def _infeasible(unit: Unit, least: Number, most: Number) -> str:
    if unit is Unit.BYTES:
        return (
            f"`max_size` must be at least the smallest possible model's {least:,} bytes, "
            f"but got max_size={most:,} bytes."
        )
    if unit is Unit.NANOSECONDS:
        return (
            f"`budget` must be at least the fastest possible allocation's {unit.words(least)}, "
            f"but got budget={unit.words(most)}."
        )
    return (
        f"`budget` must be at least the cheapest possible allocation's {unit.words(least)}, "
        f"but got budget={most:.4g}."
    )
