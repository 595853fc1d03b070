"""The costs of a space's allocations, and the limits to them."""

from collections.abc import Sequence
from math import inf

from igq import CostTable, Layer, Limit, Limits, Tie
from igq.costs import Number, bops_table, size_table, tie_layers
from igq.costs.size import size_with
from igq.settings import Options, Setting
from search_spaces import (
    BopsBudget,
    Budget,
    BytesSize,
    OverheadBudget,
    SearchSpace,
    UniformBudget,
    WeightBitsSize,
)


def limits_of(space: SearchSpace, layers: Sequence[Layer], parameters: int) -> Limits:
    """Return the limits of a space for a model with this many parameters; BOPs come first.

    The size comes second where settings change it; elsewhere all allocations are as large, and
    keep a limit to it all or none.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger.
    """
    tie = Tie(space.tied) if space.tied else None
    table = bops_table(layers, space.scheme, space.options, space.base_bits, tie)
    sizes = size_table(layers, space.options, parameters, tie)
    size = Limit(sizes, most_bytes(space, layers, parameters))
    Limits((size,)).check()
    budget = Limit(table, most_bops(space.budget, space, layers, table))
    ties = tie_layers(layers, space.options, tie)
    return Limits((budget, size) if sizes.varies else (budget,), ties).check()


def most_bops(
    budget: Budget, space: SearchSpace, layers: Sequence[Layer], table: CostTable
) -> Number:
    """Return a budget in BOPs of one image; `table` is the space's.

    Raises:
        InvalidArgumentError: the budget is an overhead, and the table has no plain cost.
    """
    match budget:
        case UniformBudget(uniform=written):
            groups = Setting.parse(written).num_groups or 1
            weights, activations = space.base_bits
            alone = Options((weights,), (activations,), (groups,))
            everywhere = bops_table(layers, space.scheme, alone)
            return everywhere.maximum
        case BopsBudget(bops=most):
            return int(most)
        case OverheadBudget(overhead=share):
            assert table.plain is not None  # every table of BOPs has it
            return int(table.plain * (1 + share))


def most_bytes(space: SearchSpace, layers: Sequence[Layer], parameters: int) -> Number:
    """Return the most bytes that a model may take; infinity where the space does not say."""
    match space.max_size:
        case BytesSize(bytes=most):
            return most
        case WeightBitsSize(weight_bits=bits):
            return size_with(layers, parameters, bits)
        case None:
            return inf
