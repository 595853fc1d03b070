"""The sensitivity of settings with bits, put together from the sensitivity of their parts.

Every layer is chosen for, the head and the embedding too. The many settings are not measured; the
parts are, each alone with all else in full precision (Eq. 9): weight bits, and activation bits
times the change that the number of groups makes:

    sensitivity(w, a, g) = s(w) + s(a, g0) s(a0, g) / s(a0, g0)
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.costs import CostTable, Ties
from igq.evaluation import divergences
from igq.layer import Layer
from igq.progress import Progress, silent
from igq.quantized import (
    Candidates,
    WeightsByBits,
    assemble,
    rotated,
    select_weights,
    set_quantizers,
)
from igq.settings import Options, Setting
from igq.vit import stage_of, stages

Parts = Mapping[str, Mapping[str, float]]
"""Layer name -> one part of a setting, such as w4, a6 or g8 -> sensitivity in nats."""


@torch.inference_mode()
def measure_parts(
    model: nn.Module,
    candidates: Candidates,
    weights: WeightsByBits,
    options: Options,
    images: Float[Tensor, "images channels height width"],
    progress: Progress = silent,
    only: Collection[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the sensitivity of each part alone: layer -> w4, a6, g8 ... -> KL in nats (Eq. 9).

    `only` names the layers to measure, by default all.
    """
    model = rotated(model, candidates.scheme.rotation)
    inputs = [images.to(next(model.parameters()).device)]
    for stage in stages(assemble(model, {}, {})):
        inputs.append(stage(inputs[-1]))
    reference = inputs.pop().float().log_softmax(-1)

    def kl(quantized: nn.Module, layer: Layer) -> float:
        first = stage_of(layer)
        x = inputs[first]
        for stage in stages(quantized)[first:]:
            x = stage(x)
        return divergences(reference, x.float().log_softmax(-1)).mean().item()

    table: dict[str, dict[str, float]] = {}
    quantized = assemble(model, {}, {})
    wanted = [one for one in candidates.layers if only is None or one.name in only]
    for done, layer in enumerate(wanted, start=1):
        row = table[layer.name] = {}
        for part in _parts(layer, options):
            if part.weight_bits is not None:
                weight = select_weights(weights, {layer.name: part}, [layer])
                row[_label(part)] = kl(assemble(model, {}, weight), layer)
            else:
                quantizer = candidates.one(layer, _whole(part, options))
                set_quantizers(quantized, {layer.name: quantizer})
                row[_label(part)] = kl(quantized, layer)
        progress(done / len(wanted))
    return table


def composed_sensitivity(
    ties: Ties, table: CostTable, parts: Parts, options: Options
) -> dict[str, dict[Setting, float]]:
    """Return the sensitivity of every setting of `table`, from the measured parts.

    Layers that share a setting add up.
    """
    reference = _label(_reference(options))

    def one(layer: str, setting: Setting) -> float:
        row = parts[layer]
        alone = row.get(f"w{setting.weight_bits}", 0.0)
        alone += row.get(f"a{setting.activation_bits}", 0.0)
        grouping = row.get(f"g{setting.num_groups}")
        if grouping is None:
            return alone
        activation = row[f"a{setting.activation_bits}"]
        return alone + activation * (grouping / (row[reference] or 1.0) - 1)

    return {
        name: {setting: sum(one(layer, setting) for layer in ties[name]) for setting in costs}
        for name, costs in table.layers.items()
    }


def _label(part: Setting) -> str:
    """Return the name of a part, in which groups have their letter too."""
    text = str(part)
    return f"g{text}" if text.isdecimal() else text


def parts_passes(model: nn.Module, layers: Iterable[Layer], options: Options, images: int) -> float:
    """Return the image-forward-passes of `measure_parts`; parts of passes add up."""
    steps = len(stages(model))
    shares = ((1 - stage_of(m) % steps / steps) * len(_parts(m, options)) for m in layers)
    return images * (1 + sum(shares))


def _reference(options: Options) -> Setting:
    """Return the number of groups, in the middle, at which activation bits are measured."""
    return Setting(num_groups=options.num_groups[len(options.num_groups) // 2])


def _parts(layer: Layer, options: Options) -> list[Setting]:
    """Return the parts of a layer's settings, one at a time."""
    weights = options.weight_bits if layer.weighted else ()
    activations = options.activation_bits if layer.bits is None else ()
    groups = options.num_groups if layer.grouped else ()
    return [
        *(Setting(weight_bits=bits) for bits in weights),
        *(Setting(activation_bits=bits) for bits in activations),
        *(Setting(num_groups=count) for count in groups),
    ]


def _whole(part: Setting, options: Options) -> Setting:
    """Return activation bits alone or groups alone with the other one at its reference."""
    middle = options.activation_bits[len(options.activation_bits) // 2]
    groups = part.num_groups or _reference(options).num_groups
    return Setting(None, part.activation_bits or middle, groups)
