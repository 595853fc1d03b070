"""A cost for every setting of every layer, of which the cost of any allocation is a sum."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from igq.errors import InvalidArgumentError
from igq.settings import Setting

if TYPE_CHECKING:
    from igq.costs.limits import Limits

Number = int | float


class Unit(StrEnum):
    """The unit of a cost table; the value is its name in files.

    >>> Unit.BOPS.words(2.1e10), Unit.BYTES.words(3_211_564), Unit.NANOSECONDS.words(14e6)
    ('2.1e+10 BOPs', '3.21 MB', '14 ms')
    """

    BOPS = "bops"
    """Bit operations of one image."""
    BYTES = "size"
    """Bytes of all parameters, with codes packed."""
    NANOSECONDS = "latency"
    """Nanoseconds of one image on the machine that was profiled; written in milliseconds."""

    def words(self, value: Number) -> str:
        """Write a cost in words."""
        scale, name = _WORDS[self]
        if self is Unit.BOPS:
            return f"{value:.4g} {name}"
        return f"{value / scale:.3g} {name}"

    def metric(self, value: Number) -> tuple[str, float]:
        """Return the name and value of a metric.

        >>> Unit.BYTES.metric(3_200_000)
        ('size_mb', 3.2)
        """
        scale, _ = _WORDS[self]
        return _METRICS[self], value / scale


_WORDS = {Unit.BOPS: (1, "BOPs"), Unit.BYTES: (1e6, "MB"), Unit.NANOSECONDS: (1e6, "ms")}
_METRICS = {Unit.BOPS: "bops", Unit.BYTES: "size_mb", Unit.NANOSECONDS: "latency_ms"}


@dataclass(frozen=True)
class CostTable:
    """The cost of each setting of each layer, or of layers that share one.

    >>> two, four = Setting(num_groups=2), Setting(num_groups=4)
    >>> table = CostTable(Unit.BOPS, {"fc1": {two: 8, four: 9}}, fixed=2, plain=10)
    >>> table.of({"fc1": four}), table.minimum, table.overhead(11)
    (11, 10, 0.10000000000000009)
    """

    unit: Unit
    layers: Mapping[str, Mapping[Setting, Number]]
    """Name -> setting -> cost."""
    fixed: Number
    """The part of the cost that every allocation has."""
    plain: Number | None = None
    """The cost with one plain quantizer for each layer: overhead is measured against it."""

    def of(self, allocation: Mapping[str, Setting]) -> Number:
        """Return the cost of `allocation`.

        Raises:
            InvalidArgumentError: a layer is missing, unknown, or has a setting that is not in the
                table.
        """
        if allocation.keys() != self.layers.keys():
            odd = sorted(set(allocation) ^ set(self.layers))
            raise InvalidArgumentError(
                f"`allocation` must name each of the {len(self.layers)} layers once, "
                f"but differs in {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}."
            )
        try:
            return self.fixed + sum([self.layers[n][setting] for n, setting in allocation.items()])
        except KeyError:
            for name, setting in allocation.items():
                self.cost(name, setting)  # names the one that is not there
            raise

    def cost(self, name: str, setting: Setting) -> Number:
        """Return the cost that one setting of a layer adds.

        Raises:
            InvalidArgumentError: the layer has no such setting.
        """
        costs = self.layers[name]
        if setting not in costs:
            known = ", ".join(map(str, self.settings(name)))
            raise InvalidArgumentError(
                f"`num_groups` must be one of [{known}], but got {setting} for {name}."
            )
        return costs[setting]

    def settings(self, name: str) -> list[Setting]:
        """Return the settings of a layer, cheapest first."""
        return sorted(self.layers[name], key=lambda setting: self.layers[name][setting])

    @property
    def minimum(self) -> Number:
        """The cost of the cheapest allocation."""
        return self.fixed + sum(min(costs.values()) for costs in self.layers.values())

    @property
    def maximum(self) -> Number:
        """The cost of the most expensive allocation."""
        return self.fixed + sum(max(costs.values()) for costs in self.layers.values())

    @property
    def varies(self) -> bool:
        """Whether any setting changes the cost."""
        return any(len(set(costs.values())) > 1 for costs in self.layers.values())

    def limit(self, most: Number | None = None, uniform: int | str | None = None) -> "Limits":
        """Return the limit of `most`, or of the cost of one setting everywhere.

        Raises:
            InfeasibleBudgetError: even the cheapest allocation costs more.
            InvalidArgumentError: a layer does not have this setting, or not one limit is given.

        >>> table = CostTable(Unit.BOPS, {"fc1": {Setting(num_groups=2): 8}}, fixed=2)
        >>> table.limit(uniform=2).budget, table.limit(11).budget
        (10, 11)
        """
        from igq.costs.limits import Limit, Limits  # which hold tables

        if (most is None) == (uniform is None):
            raise InvalidArgumentError(
                f"`limit` takes `most` or `uniform`, but got most={most} and uniform={uniform}."
            )
        if uniform is not None:
            most = self.of(dict.fromkeys(self.layers, Setting.parse(uniform)))
        assert most is not None
        return Limits((Limit(self, most),)).check()

    def overhead(self, cost: Number) -> float:
        """Return the share of `plain` that a cost lies above it.

        Raises:
            InvalidArgumentError: the table has no plain cost.
        """
        if self.plain is None:
            raise InvalidArgumentError(
                f"a table of {self.unit} must have a plain cost: it has none."
            )
        return cost / self.plain - 1
