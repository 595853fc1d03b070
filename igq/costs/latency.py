"""The latency of a quantized model on one machine, as a sum over its operators.

A profile holds, for every shape of operator and every setting, the median and spread of its time on
the machine that was measured; igq.runtime.probes makes the operators, `igq profile` measures them.
An attention is one operator: its time stands at the softmax map, measured with q, k and v of the
same bits, and q, k and v cost nothing besides.

Costs are whole nanoseconds, so that sums are exact; a person reads and writes milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from igq.costs.table import CostTable, Unit
from igq.costs.ties import Tie, tie_layers
from igq.errors import ProfileError
from igq.layer import Kind, Layer
from igq.scheme import Scheme
from igq.settings import Options, Setting

NANOSECONDS_IN_MS = 10**6
TIMED = (Kind.EMBEDDING, Kind.LINEAR, Kind.SOFTMAX, Kind.HEAD)
"""Kinds of layers that an operator stands for."""


@dataclass(frozen=True)
class Machine:
    """The machine that a model runs on, as far as its latency depends on it.

    >>> str(Machine("AMD EPYC", "avx512", threads=1))
    'AMD EPYC, avx512, 1 thread'
    """

    processor: str
    instructions: str
    """The instruction set of the runtime there."""
    threads: int

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return f"{self.processor}, {self.instructions}, {self.threads} thread{plural}"


@dataclass(frozen=True)
class Timing:
    """The time of an operator for one image: median and interquartile range, in ms.

    >>> Timing(0.25, 0.01).fitted
    False
    """

    median_ms: float
    spread_ms: float
    fitted: bool = False
    """Whether it lies on a line through other numbers of groups, and was not measured itself."""

    def __post_init__(self) -> None:
        check_duration("median_ms", self.median_ms)
        check_duration("spread_ms", self.spread_ms)


@dataclass(frozen=True)
class Operator:
    """The operator of layers of one shape, and its timings by setting, each part of it given.

    >>> timings = {Setting(4, 4, 8): Timing(0.25, 0.01)}
    >>> Operator(Kind.LINEAR, (197, 192, 576), ("blocks.0.attn.qkv",), timings).shape
    (197, 192, 576)
    """

    kind: Kind
    shape: tuple[int, int, int]
    """Tokens, channels, outputs, as `Layer` has them."""
    layers: tuple[str, ...]
    timings: Mapping[Setting, Timing]
    """A setting that was not measured, or that the runtime cannot run, is not in it."""


@dataclass(frozen=True)
class Profile:
    """The latencies of a model's operators on one machine.

    >>> machine = Machine("AMD EPYC", "avx512", 1)
    >>> Profile("server", machine, "0.2.0", "vit_tiny", Scheme.BEST, (), rest_ms=0.5).target
    'server'
    """

    target: str
    machine: Machine
    runtime: str
    """The version of igq that was measured."""
    model: str
    scheme: Scheme
    operators: tuple[Operator, ...]
    rest_ms: float
    """The time of everything else: normalisations, embeddings, calls."""

    def __post_init__(self) -> None:
        check_duration("rest_ms", self.rest_ms)
        names = [name for operator in self.operators for name in operator.layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ProfileError(
                f"a latency table must have each layer once, but has {twice[0]} twice."
            )

    def operator(self, name: str) -> Operator | None:
        """Return the operator of a layer; None where the table has no such layer."""
        return next((made for made in self.operators if name in made.layers), None)


MOST_MS = 1e12
"""The longest time that is believed (our choice)."""


def check_duration(name: str, value: object) -> float:
    """Return a time in ms, as a float, if a clock can give it.

    Raises:
        ProfileError: it is no number, negative, NaN, or longer than 30 years.

    >>> check_duration("rest_ms", -1.0)
    Traceback (most recent call last):
    igq.errors.ProfileError: `rest_ms` must be a time from 0 ms up, but got -1.0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_MS:
        return float(value)
    raise ProfileError(f"`{name}` must be a time from 0 ms up, but got {value!r:.100}.")


def latency_table(
    profile: Profile,
    layers: Sequence[Layer],
    scheme: Scheme,
    options: Options,
    base_bits: tuple[int, int] | None = None,
    tie: Tie | None = None,
) -> CostTable:
    """Return the nanoseconds of every setting that was measured, of every layer or tie.

    `base_bits` (weights, activations) are those of layers that are not chosen for. More groups
    never cost less, nor does any setting than the one of fewest bits and groups: where noise says
    so they cost the same. Limits in other units have the same cheapest setting then.

    Raises:
        ProfileError: the table is of another model or scheme, or a layer has no setting left.

    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> timings = {Setting(4, 4, 1): Timing(0.25, 0.01), Setting(4, 4, 2): Timing(0.5, 0.01)}
    >>> operators = (Operator(Kind.LINEAR, (2, 3, 5), ("fc",), timings),)
    >>> machine = Machine("AMD EPYC", "avx512", 1)
    >>> profile = Profile("server", machine, "0.2.0", "tiny", Scheme.BEST, operators, 1.0)
    >>> table = latency_table(profile, [fc], Scheme.BEST, Options((4,), (4,), (1, 2, 4)))
    >>> table.of({"fc": Setting(num_groups=2)}), list(map(str, table.settings("fc")))
    (1500000, ['1', '2'])
    """
    check_profile(profile, layers, scheme)
    base = base_bits or (options.weight_bits[0], options.activation_bits[0])
    ties = tie_layers(layers, options, tie)
    chosen = {name for members in ties.values() for name in members}

    def cost(layer: Layer, setting: Setting) -> float:
        return nanoseconds(profile, layer, setting, base)

    entries = {
        name: _offered(name, row) for name, row in ties.entries(layers, options, cost).items()
    }
    rest = [cost(layer, Setting()) for layer in layers if layer.name not in chosen]
    fixed = round(profile.rest_ms * NANOSECONDS_IN_MS) + sum(rest)
    if fixed == inf:
        raise ProfileError(f"a latency table must have w{base[0]}a{base[1]} measured, but has not.")
    return CostTable(Unit.NANOSECONDS, entries, fixed=int(fixed))


def nanoseconds(profile: Profile, layer: Layer, setting: Setting, base: tuple[int, int]) -> float:
    """Return the whole nanoseconds of a layer with a setting; infinity where not measured."""
    operator = profile.operator(layer.name)
    if operator is None:
        return 0.0
    timing = operator.timings.get(whole_setting(layer, setting, base))
    return inf if timing is None else float(round(timing.median_ms * NANOSECONDS_IN_MS))


def whole_setting(layer: Layer, setting: Setting, base: tuple[int, int]) -> Setting:
    """Return a setting with each part that the layer's operator has; open parts are the base's.

    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> str(whole_setting(fc, Setting(num_groups=8), (4, 6)))
    'w4a6g8'
    """
    weights = (setting.weight_bits or base[0]) if layer.weighted else None
    activations = layer.bits or setting.activation_bits or base[1]
    return Setting(weights, activations, (setting.num_groups or 1) if layer.grouped else None)


def check_profile(profile: Profile, layers: Sequence[Layer], scheme: Scheme) -> None:
    """Refuse a table of another model, or of other quantizers.

    Raises:
        ProfileError: it is; the message names the first difference.
    """
    if replace(profile.scheme, weights=scheme.weights) != scheme:  # which only codes depend on
        raise ProfileError(
            f"a latency table must be measured with the model's scheme, {_written(scheme)}, "
            f"but {profile.target} was with {_written(profile.scheme)}."
        )
    timed = {layer.name: layer for layer in layers if layer.kind in TIMED}
    measured = {name: operator for operator in profile.operators for name in operator.layers}
    for name in (*timed, *measured):
        if name not in timed or name not in measured:
            where = "the model" if name in timed else f"the table of {profile.model}"
            raise ProfileError(
                f"a latency table must be of this model, but only {where} has {name}."
            )
        layer, operator = timed[name], measured[name]
        shape = (layer.tokens, layer.channels, layer.outputs)
        if (operator.kind, operator.shape) != (layer.kind, shape):
            raise ProfileError(
                f"a latency table must be of this model, whose {name} is {layer.kind} {shape}, "
                f"but that of {profile.model} has {operator.kind} {operator.shape}."
            )


def _written(scheme: Scheme) -> str:
    return f"{scheme.inputs}, {scheme.softmax}, {scheme.assignment}, {scheme.rotation}"


def _offered(name: str, costs: Mapping[Setting, float]) -> dict[Setting, int]:
    """Return the settings that were measured; more groups or bits than the fewest cost no less."""
    measured = {setting: int(cost) for setting, cost in costs.items() if cost < inf}
    if not measured:
        raise ProfileError(
            f"a latency table must have a setting of the space for {name}: it has none."
        )
    kept: dict[Setting, int] = {}
    for bits in dict.fromkeys(replace(setting, num_groups=None) for setting in measured):
        alike = [s for s in measured if replace(s, num_groups=None) == bits]
        kept |= zip(alike, rising([measured[s] for s in alike]), strict=True)
    least = next(iter(kept.values()))
    return {setting: max(kept[setting], least) for setting in measured}


def rising(costs: Sequence[int]) -> list[int]:
    """Return the nearest costs, in squares, of which none is below the one before.

    Neighbours that are out of order share their mean (pool adjacent violators).

    >>> rising([5, 3, 4, 9, 7])
    [4, 4, 4, 8, 8]
    """
    pools: list[tuple[int, int]] = []
    for cost in costs:
        pool = (cost, 1)
        while pools and pools[-1][0] * pool[1] > pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1])
        pools.append(pool)
    return [total // count for total, count in pools for _ in range(count)]
