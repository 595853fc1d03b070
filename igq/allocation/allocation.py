"""Allocations: the setting of each layer, and those that give all layers the same."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from igq.costs import CostTable, Limits
from igq.errors import InvalidArgumentError
from igq.layer import Layer, grouped
from igq.settings import Setting, plain


@dataclass(frozen=True, repr=False)
class Allocation(Mapping[str, Setting]):
    """Layer name -> setting; a frozen, hashable mapping in layer order.

    >>> Allocation.of({"fc1": 8})["fc1"].num_groups
    8
    >>> Allocation.of({"fc1": 8, "fc2": "w4a6g2"})
    Allocation.of({'fc1': 8, 'fc2': 'w4a6g2'})
    """

    entries: tuple[tuple[str, Setting], ...]

    @classmethod
    def of(cls, settings: Mapping[str, Setting | int | str]) -> "Allocation":
        """Return the allocation with these entries, in this order; 8 stands for 8 groups.

        Raises:
            InvalidArgumentError: an entry is not a setting.
        """
        return cls(tuple((name, Setting.parse(setting)) for name, setting in settings.items()))

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self.entries)

    def items(self) -> ItemsView[str, Setting]:
        return self._settings.items()

    def __repr__(self) -> str:
        return f"Allocation.of({plain(self)})"

    @cached_property
    def _settings(self) -> dict[str, Setting]:
        return dict(self.entries)


def uniform(layers: Iterable[Layer], num_groups: int) -> Allocation:
    """Return the allocation that gives every layer the same number of groups.

    Raises:
        InvalidArgumentError: `num_groups` is below 1.

    >>> from igq.layer import Kind
    >>> fc1 = Layer("fc1", Kind.LINEAR, tokens=4, channels=8, outputs=2)
    >>> uniform([fc1], 8)["fc1"].num_groups
    8
    """
    if num_groups < 1:
        raise InvalidArgumentError(f"`num_groups` must be at least 1, but got {num_groups}.")
    return Allocation.of({layer.name: num_groups for layer in grouped(layers)})


def uniform_allocations(table: CostTable) -> list[Allocation]:
    """Return the allocations of one setting everywhere, cheapest first, and the cheapest of all.

    Where bits are searched, weights and activations have the same bits if they can.

    >>> from igq.costs import Unit
    >>> one, two = Setting(num_groups=1), Setting(num_groups=2)
    >>> table = CostTable(Unit.BOPS, {"fc1": {one: 8, two: 9}, "fc2": {one: 5, two: 7}}, fixed=2)
    >>> [str(allocation["fc2"]) for allocation in uniform_allocations(table)]
    ['1', '2']
    """
    everywhere = _everywhere(table)
    same = [s for s in everywhere if s.weight_bits and s.weight_bits == s.activation_bits]
    return _given_to_all(table, same or everywhere)


def largest_uniform(limits: Limits) -> Allocation:
    """Return the most expensive uniform allocation within the limits.

    Where the size is limited, which only weights decide, activations may have other bits than
    weights.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.

    >>> from igq.costs import Unit
    >>> one, two = Setting(num_groups=1), Setting(num_groups=2)
    >>> table = CostTable(Unit.BOPS, {"fc1": {one: 8, two: 9}}, fixed=2)
    >>> [str(largest_uniform(table.limit(most))["fc1"]) for most in (10, 11)]
    ['1', '2']
    """
    limits.check()
    if len(limits.bounded) == 1:
        known = uniform_allocations(limits.table)
    else:
        known = _given_to_all(limits.table, _everywhere(limits.table))
    return [allocation for allocation in known if limits.fits(allocation)][-1]


def _given_to_all(table: CostTable, settings: Iterable[Setting]) -> list[Allocation]:
    """Return allocations of one setting to all layers, with the cheapest allocation of all."""
    cheapest = Allocation.of({name: table.settings(name)[0] for name in table.layers})
    alike = (
        Allocation.of({n: setting.limited_to(next(iter(row))) for n, row in table.layers.items()})
        for setting in settings
    )
    return sorted(dict.fromkeys((cheapest, *alike)), key=table.of)


def _everywhere(table: CostTable) -> list[Setting]:
    """Return every combination of the parts that any layer can have."""
    known = {s for name in table.layers for s in table.settings(name)}

    def values(part: str) -> list[int | None]:
        return sorted({getattr(setting, part) for setting in known} - {None}) or [None]

    parts = map(values, ("weight_bits", "activation_bits", "num_groups"))
    return [Setting(*whole) for whole in product(*parts)]
