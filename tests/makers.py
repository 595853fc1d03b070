"""Tables and allocations of numbers of groups, written as whole numbers."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import igq
from igq import (
    Allocation,
    Assignment,
    CostTable,
    InputMethod,
    Kind,
    Layer,
    Limit,
    Limits,
    Options,
    Rotation,
    Scheme,
    Setting,
    SoftmaxMethod,
    Tie,
    Unit,
    WeightMethod,
)
from igq.costs import Number, bops_table, tie_layers

V = TypeVar("V", int, float)

FITTED = Scheme(
    InputMethod.CHANNELS,
    SoftmaxMethod.UNIT_ROWS,
    Assignment.LEAST_ERROR,
    Rotation.NONE,
    WeightMethod.NEAREST,
)
"""A scheme whose bounds are fitted, with the best choices otherwise."""


def groups(number: int) -> Setting:
    """The setting of so many groups."""
    return Setting(num_groups=number)


def settings_of(table: Mapping[str, Mapping[int, V]]) -> dict[str, dict[Setting, V]]:
    """Layer -> number of groups -> value, with settings as keys."""
    return {name: {groups(g): value for g, value in row.items()} for name, row in table.items()}


def table_of(
    costs: Mapping[str, Mapping[int, Number]],
    fixed: int = 0,
    unit: Unit = Unit.BOPS,
    plain: int | None = None,
) -> CostTable:
    """A cost table from numbers of groups."""
    return CostTable(unit, settings_of(costs), fixed, plain)


def limits_of(table: CostTable, most: Number) -> Limits:
    """The one limit of a table, not checked."""
    return Limits((Limit(table, most),))


def alike(names: Sequence[str] | Mapping[str, object], number: int) -> Allocation:
    """The same number of groups for all."""
    return Allocation.of(dict.fromkeys(names, number))


def counts_of(allocation: Mapping[str, Setting]) -> dict[str, int | None]:
    """Layer -> number of groups."""
    return {name: setting.num_groups for name, setting in allocation.items()}


def bops_of(
    layers: Sequence[Layer],
    num_groups: Sequence[int],
    bits: tuple[int, int] = (4, 4),
    scheme: Scheme = Scheme.PAPER,
    tie: Tie | None = None,
) -> CostTable:
    """The BOPs of layers whose groups alone are chosen; bits are of weights, of activations."""
    options = Options(bits[:1], bits[1:], tuple(num_groups))
    return bops_table(layers, scheme, options, bits, tie)


def tied_limits(layers: Sequence[Layer], num_groups: Sequence[int], tie: Tie, most: int) -> Limits:
    """The limits of layers that share their number of groups."""
    options = Options((4,), (4,), tuple(num_groups))
    table = bops_table(layers, Scheme.PAPER, options, (4, 4), tie)
    return Limits((Limit(table, most),), tie_layers(layers, options, tie))


def num_slices(layer: Layer) -> int:
    """The slices of a layer in one image, with the scheme `FITTED`."""
    match layer.kind:
        case Kind.LINEAR:
            return layer.channels
        case Kind.VALUE:
            return layer.heads * layer.channels
        case Kind.EMBEDDING:
            return 1
        case _:
            return layer.tokens


def fitted(candidates: igq.Candidates, number: int) -> igq.Selection:
    """The quantizers of so many groups in every layer."""
    return candidates.select(igq.uniform(candidates.layers, number))
