"""Bits chosen together with groups: what every setting of every layer costs and harms.

Every layer is chosen for, the head and the embedding too. The two operands of an attention
product share their bits: k has q's, v the softmax map's. So each choice has a cost of its own.

The harm of a setting is not measured for each of the many, but put together from its parts, each
measured alone with all else in full precision (Eq. 9): that of its weight bits, and that of its
activation bits times what its number of groups changes:

    harm(w, a, g) = harm(w) + harm(a, g0) harm(a0, g) / harm(a0, g0)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.affine import QuantizedTensor
from igq.allocation import Allocation
from igq.candidates import Candidates
from igq.cost import BopsTable, constant_bops, grouping_bops, product_bops
from igq.evaluation import divergences
from igq.layers import Layer, Tie, block_and_place
from igq.settings import Choice, Setting
from igq.size import SizeTable, other_bytes, weight_bytes
from igq.vit import assemble, set_quantizers, stage_of, stages

WeightsByBits = Mapping[int, Mapping[str, QuantizedTensor]]
"""Weight bits -> layer name -> quantized weight."""
Parts = Mapping[str, Mapping[str, float]]
"""Layer name -> setting of one thing alone, such as w4, a6 or g8 -> harm in nats."""


_PARTNERS = {"k": "q", "v": "softmax"}
"""Operands of attention that share the bits of the other one of their product."""


@dataclass(frozen=True)
class Options:
    """The bits and numbers of groups that a setting is made of."""

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    num_groups: tuple[int, ...]

    def of(self, layers: Iterable[Layer]) -> list[Setting]:
        """The settings of layers that share one: each thing is chosen that any of them has."""
        layers = list(layers)
        none: tuple[int | None, ...] = (None,)
        weighted = any(layer.weighted for layer in layers)
        free = any(layer.bits is None for layer in layers)
        grouped = any(layer.grouped for layer in layers)
        return [
            Setting(*parts)
            for parts in product(
                self.weight_bits if weighted else none,
                self.activation_bits if free else none,
                self.num_groups if grouped else none,
            )
        ]


def shared(layers: Iterable[Layer], tie: Tie | None = None) -> dict[str, list[Layer]]:
    """The layers that share a setting, by the name of what they share."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        path, dot, operand = layer.name.rpartition(".")
        partner = operand if layer.weighted else _PARTNERS.get(operand, operand)
        name = path + dot + partner
        block, place = block_and_place(name)
        key = {Tie.BLOCK: block or place, Tie.KIND: place, None: name}[tie]
        found.setdefault(key, []).append(layer)
    return found


def mixed_bops(
    layers: Iterable[Layer], options: Options, base_bits: tuple[int, int], tie: Tie | None = None
) -> BopsTable:
    """The cost of every setting; overhead is against one group at `base_bits` (weights, others)."""
    sharing = shared(layers, tie)
    return BopsTable(
        layers={
            name: {s: sum(_bops(layer, s) for layer in members) for s in options.of(members)}
            for name, members in sharing.items()
        },
        fixed=0,
        base={
            name: sum(product_bops(m, *base_bits) + constant_bops(m) for m in members)
            for name, members in sharing.items()
        },
        members={name: tuple(m.name for m in members) for name, members in sharing.items()},
    )


def mixed_sizes(
    layers: Iterable[Layer], options: Options, parameters: int, tie: Tie | None = None
) -> SizeTable:
    """The size of every setting, of a model with so many parameters in full precision."""
    layers = list(layers)
    return SizeTable(
        layers={
            name: {
                s: sum(weight_bytes(layer, s.weight_bits or 0) for layer in members)
                for s in options.of(members)
            }
            for name, members in shared(layers, tie).items()
        },
        fixed=other_bytes(layers, parameters),
    )


def uniform_allocations(table: BopsTable) -> list[Allocation]:
    """The same everywhere, cheapest first; weights and activations with the same bits if can be.

    The cheapest allocation of all is among them.

    >>> table = BopsTable({"fc1": {1: 8, 2: 9}, "fc2": {1: 5, 2: 7}}, fixed=2, base={})
    >>> [dict(allocation) for allocation in uniform_allocations(table)]
    [{'fc1': 1, 'fc2': 1}, {'fc1': 2, 'fc2': 2}]
    """
    everywhere = _everywhere(table)
    same = [c for c in everywhere if isinstance(c, Setting) and c.weight_bits == c.activation_bits]
    return _given_to_all(table, same or everywhere)


def uniform_of_any_bits(table: BopsTable) -> list[Allocation]:
    """The same everywhere, cheapest first, with whatever bits of weights and of activations."""
    return _given_to_all(table, _everywhere(table))


def _given_to_all(table: BopsTable, choices: Iterable[Choice]) -> list[Allocation]:
    """Allocations of one choice to all layers; the cheapest allocation of all besides."""
    cheapest = Allocation.of({name: table.choices(name)[0] for name in table.layers})
    alike = (
        Allocation.of({n: _like(costs, choice) for n, costs in table.layers.items()})
        for choice in choices
    )
    return sorted(dict.fromkeys((cheapest, *alike)), key=table.of)


def _everywhere(table: BopsTable) -> list[Choice]:
    choices = dict.fromkeys(choice for name in table.layers for choice in table.choices(name))
    settings = [choice for choice in choices if isinstance(choice, Setting)]
    if not settings:
        return list(choices)

    def values(part: str) -> list[int | None]:
        known = {getattr(setting, part) for setting in settings} - {None}
        return sorted(known) or [None]

    parts = map(values, ("weight_bits", "activation_bits", "num_groups"))
    return [Setting(*whole) for whole in product(*parts)]


def _like(choices: Iterable[Choice], setting: Choice) -> Choice:
    """Of a setting, what these choices have."""
    if not isinstance(setting, Setting):
        return setting
    like = next(c for c in choices if isinstance(c, Setting))
    return Setting(
        None if like.weight_bits is None else setting.weight_bits,
        None if like.activation_bits is None else setting.activation_bits,
        None if like.num_groups is None else setting.num_groups,
    )


def select_weights(
    weights: WeightsByBits, allocation: Mapping[str, Choice], layers: Iterable[Layer]
) -> dict[str, QuantizedTensor]:
    """The weight of every layer with the bits that its setting gives it."""
    chosen = {}
    for layer in layers:
        setting = allocation[layer.name]
        if layer.weighted and isinstance(setting, Setting) and setting.weight_bits is not None:
            chosen[layer.name] = weights[setting.weight_bits][layer.name]
    return chosen


@torch.inference_mode()
def measure_parts(
    model: nn.Module,
    candidates: Candidates,
    weights: WeightsByBits,
    options: Options,
    images: Float[Tensor, "images channels height width"],
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[str, float]]:
    """The harm of each thing alone: layer -> w4, a6, g8 ... -> KL in nats (Eq. 9)."""
    inputs = [images.to(next(model.parameters()).device)]
    for stage in stages(assemble(model, {}, {})):
        inputs.append(stage(inputs[-1]))
    reference = inputs.pop().float().log_softmax(-1)

    def harm(harmed: nn.Module, layer: Layer) -> float:
        first = stage_of(layer)
        x = inputs[first]
        for stage in stages(harmed)[first:]:
            x = stage(x)
        return divergences(reference, x.float().log_softmax(-1)).mean().item()

    table: dict[str, dict[str, float]] = {}
    harmed = assemble(model, {}, {})
    for done, layer in enumerate(candidates.layers, start=1):
        row = table[layer.name] = {}
        for part in _parts(layer, options):
            if part.weight_bits is not None:
                weight = select_weights(weights, {layer.name: part}, [layer])
                row[str(part)] = harm(assemble(model, {}, weight), layer)
            else:
                quantizer = candidates.one(layer, _whole(part, options))
                set_quantizers(harmed, {layer.name: quantizer})
                row[str(part)] = harm(harmed, layer)
        progress(done / len(candidates.layers))
    return table


def mixed_harm(table: BopsTable, parts: Parts, options: Options) -> dict[str, dict[Choice, float]]:
    """The harm of every setting, put together from what was measured of its parts."""
    reference = str(_reference(options))

    def one(layer: str, setting: Setting) -> float:
        row = parts[layer]
        harm = row.get(f"w{setting.weight_bits}", 0.0) + row.get(f"a{setting.activation_bits}", 0.0)
        grouping = row.get(f"g{setting.num_groups}")
        if grouping is None:
            return harm
        activation = row[f"a{setting.activation_bits}"]
        return harm + activation * (grouping / (row[reference] or 1.0) - 1)

    return {
        name: {
            choice: sum(one(layer, choice) for layer in table.members[name])
            for choice in choices
            if isinstance(choice, Setting)
        }
        for name, choices in table.layers.items()
    }


def parts_forwards(
    model: nn.Module, layers: Iterable[Layer], options: Options, images: int
) -> float:
    """Image-forward-passes that `measure_parts` takes: parts of passes add up."""
    steps = len(stages(model))
    shares = ((1 - stage_of(m) % steps / steps) * len(_parts(m, options)) for m in layers)
    return images * (1 + sum(shares))


def _reference(options: Options) -> Setting:
    """The number of groups, in the middle, at which activation bits are measured."""
    return Setting(num_groups=options.num_groups[len(options.num_groups) // 2])


def _parts(layer: Layer, options: Options) -> list[Setting]:
    """What is measured of a layer, one thing at a time."""
    weights = options.weight_bits if layer.weighted else ()
    activations = options.activation_bits if layer.bits is None else ()
    groups = options.num_groups if layer.grouped else ()
    return [
        *(Setting(weight_bits=bits) for bits in weights),
        *(Setting(activation_bits=bits) for bits in activations),
        *(Setting(num_groups=count) for count in groups),
    ]


def _whole(part: Setting, options: Options) -> Setting:
    """A setting of activation bits alone or groups alone, with the other at its reference."""
    middle = options.activation_bits[len(options.activation_bits) // 2]
    groups = part.num_groups or _reference(options).num_groups
    return Setting(None, part.activation_bits or middle, groups)


def _bops(layer: Layer, setting: Setting) -> int:
    """The cost of one layer; what it has no such thing of is passed over."""
    activations = setting.activation_bits or layer.bits or 1
    grouping = grouping_bops(layer, setting.num_groups or 1) if layer.grouped else 0
    cost = product_bops(layer, setting.weight_bits or 1, activations)
    return cost + constant_bops(layer) + grouping
