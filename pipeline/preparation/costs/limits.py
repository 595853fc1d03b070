"""The costs of a space's allocations, and the limits to them."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from igq import (
    CostTable,
    InfeasibleBudgetError,
    InvalidArgumentError,
    Layer,
    Limit,
    Limits,
    ProfileError,
    Tie,
    Unit,
)
from igq.costs import Number, Profile, bops_table, latency_table, size_table, tie_layers
from igq.costs.latency import NANOSECONDS_IN_MS
from igq.costs.size import size_with
from igq.settings import Options, Setting
from search_spaces import (
    BopsBudget,
    Budget,
    BytesSize,
    LatencyBudget,
    OverheadBudget,
    SearchSpace,
    UniformBudget,
    WeightBitsSize,
)


def limits_of(
    space: SearchSpace, layers: Sequence[Layer], parameters: int, profile: Profile | None = None
) -> Limits:
    """Return the limits of a space for a model with this many parameters; the budget comes first.

    BOPs come second where the budget is a latency, by the table of `profile`. The size comes last
    where settings change it; elsewhere all allocations are as large, and keep a limit to it all or
    none.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger.
        ProfileError: the latency table is of another model or scheme.
    """
    tie = Tie(space.tied) if space.tied else None
    bops = bops_table(layers, space.scheme, space.options, space.base_bits, tie)
    sizes = size_table(layers, space.options, parameters, tie)
    size = Limit(sizes, most_bytes(space, layers, parameters))
    Limits((size,)).check()
    if profile is not None and isinstance(space.budget, LatencyBudget):
        table = latency_table(profile, layers, space.scheme, space.options, space.base_bits, tie)
        most = inf
        if space.max_bops is not None:
            most = most_cost(space.max_bops, space, layers, bops)
        limits = [
            Limit(table, most_cost(space.budget, space, layers, table, profile)),
            Limit(_offered(bops, table), most),
            Limit(_offered(sizes, table), size.most),
        ]
    else:
        limits = [Limit(bops, most_cost(space.budget, space, layers, bops)), size]
    ties = tie_layers(layers, space.options, tie)
    kept = tuple(limits if sizes.varies else limits[:-1])
    return check_budget(Limits(kept, ties), space.budget)


def check_budget(limits: Limits, budget: Budget) -> Limits:
    """Return the limits if an allocation keeps them; what does not is told as it was written.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.
    """
    table = limits.table
    if isinstance(budget, OverheadBudget) and limits.budget < table.minimum:
        raise InfeasibleBudgetError(
            "`budget` must be at least the cheapest possible allocation's overhead of "
            f"{table.overhead(table.minimum):.2%}, but got {budget}."
        )
    return limits.check()


def _offered(table: CostTable, by: CostTable) -> CostTable:
    """Return a table with the settings that another one offers."""
    rows = {name: {s: table.layers[name][s] for s in row} for name, row in by.layers.items()}
    return replace(table, layers=rows)


def most_cost(
    budget: Budget,
    space: SearchSpace,
    layers: Sequence[Layer],
    table: CostTable,
    profile: Profile | None = None,
) -> Number:
    """Return a budget in the unit of `table`, the space's: BOPs, or nanoseconds of one image.

    Raises:
        InvalidArgumentError: the budget is in another unit.
        ProfileError: `profile` lacks the setting that a uniform latency names.
    """
    if isinstance(budget, LatencyBudget) is not (table.unit is Unit.NANOSECONDS):
        raise InvalidArgumentError(
            f"`budget` must be in the unit of the study's, {table.unit}, but got {budget}."
        )
    match budget:
        case UniformBudget(uniform=written):
            weights, activations = space.base_bits
            alone = Options((weights,), (activations,), (Setting.parse(written).num_groups or 1,))
            return bops_table(layers, space.scheme, alone).maximum
        case BopsBudget(bops=most):
            return int(most)
        case OverheadBudget(overhead=share):
            assert table.plain is not None  # every table of BOPs has it
            return int(table.plain * (1 + share))
        case LatencyBudget(latency=str(written)):
            assert profile is not None  # the table was made of it
            return _uniform_latency(profile, space, layers, written.partition(":")[2])
        case LatencyBudget(latency=float(most)):
            return round(most * NANOSECONDS_IN_MS)
    raise AssertionError(budget)


def _uniform_latency(
    profile: Profile, space: SearchSpace, layers: Sequence[Layer], written: str
) -> Number:
    """Return the latency of one setting everywhere, as the space's own table counts it.

    Raises:
        ProfileError: it was not measured.
    """
    known, wanted = space.options, Setting.parse(written)
    weights = wanted.weight_bits or known.weight_bits[0]
    bits, groups = wanted.activation_bits or known.activation_bits[0], wanted.num_groups or 1
    options = Options(
        tuple(sorted({*known.weight_bits, weights})),
        tuple(sorted({*known.activation_bits, bits})),
        tuple(sorted({*known.num_groups, groups})),
    )
    table = latency_table(profile, layers, space.scheme, options, space.base_bits)
    chosen: dict[str, Setting] = {}
    for name, row in table.layers.items():
        chosen[name] = Setting(weights, bits, groups).limited_to(next(iter(row)))
        if chosen[name] not in row:
            raise ProfileError(
                f"a latency table must have {chosen[name]} measured for {name}, but has not."
            )
    return table.of(chosen)


def most_bytes(space: SearchSpace, layers: Sequence[Layer], parameters: int) -> Number:
    """Return the most bytes that a model may take; infinity where the space does not say."""
    match space.max_size:
        case BytesSize(bytes=most):
            return most
        case WeightBitsSize(weight_bits=bits):
            return size_with(layers, parameters, bits)
        case None:
            return inf
