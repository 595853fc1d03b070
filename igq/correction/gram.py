"""Weights rounded for least error of their outputs, each token weighted by its gradient.

The Gram matrix of a layer's quantized inputs says how errors of its weights add up in its outputs
(`igq.arithmetic.rounding`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from igq.allocation import Allocation, uniform
from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rounding import round_weight
from igq.grouping import Quantizer
from igq.modules import Conv2d, Linear, slot_of
from igq.quantized import Candidates, quantize_weights, rotated, with_slots
from igq.sensitivities import fisher_draw
from igq.vit import layers

BATCH_SIZE = 8
DOUBLE = 8
"""Bytes of a number of a Gram matrix."""
MEMORY = 2**30
"""Bytes of Gram matrices that are held at a time; the layers of large models take several passes
(our choice)."""
UNIFORM_SHARE = 0.05
"""Share of a token's weight that does not depend on its gradient."""


def rounded_weights(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    weight_bits: int,
    seed: int = 0,
) -> dict[str, QuantizedTensor]:
    """Return the quantized weight of every layer, rounded for least error of its outputs.

    The head, whose inputs are few, keeps its nearest codes.
    """
    model = rotated(model, candidates.scheme.rotation)
    weights = quantize_weights(model, weight_bits)
    chosen = candidates.select(middle(candidates))
    for some in _within(model, MEMORY):
        for name, gram in grams(model, chosen, images, seed, some).items():
            weight = model.get_parameter(f"{name}.weight")
            rounded = round_weight(weight.flatten(1), gram, weight_bits)
            weights[name] = replace(rounded, codes=rounded.codes.view(weight.shape))
    return weights


def _within(model: nn.Module, memory: int) -> list[list[str]]:
    """Return the names of all layers that are rounded, those of each list within the memory."""
    groups: list[list[str]] = [[]]
    held = 0
    for layer in layers(model):
        if not layer.weighted:
            continue
        size = DOUBLE * model.get_parameter(f"{layer.name}.weight")[0].numel() ** 2
        if groups[-1] and held + size > memory:
            groups.append([])
            held = 0
        groups[-1].append(layer.name)
        held += size
    return groups


def grams(
    model: nn.Module,
    quantizers: Mapping[str, Quantizer],
    images: Float[Tensor, "images channels height width"],
    seed: int,
    only: Collection[str] | None = None,
) -> dict[str, Float[Tensor, "inputs inputs"]]:
    """Return the Gram matrix of the quantized inputs of the patch embedding and the blocks' layers.

    `only` names the layers, by default all.

    A token's weight is the norm of the gradient at the layer's output of logits' u, with u a
    `fisher_draw`.
    """
    slots = {name: StraightThrough() for name in quantizers}
    made = with_slots(model, lambda layer: slots.get(layer.name, nn.Identity()))
    device = next(model.parameters()).device
    for name, quantizer in quantizers.items():
        slots[name].slot = slot_of(quantizer).to(device)
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def seen(product: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            axis = 1 if isinstance(product, Conv2d) else -1
            x = _inputs(product, slots[name].taken())

            def weigh(gradient: Tensor) -> None:
                weight = gradient.movedim(axis, -1).flatten(0, -2).norm(dim=-1, keepdim=True)
                weight = weight / weight.mean().clamp(min=torch.finfo(weight.dtype).tiny)
                weight = (1 - UNIFORM_SHARE) * weight + UNIFORM_SHARE
                found[name] = found.get(name, 0) + ((x * weight).T @ x).double()

            output.register_hook(weigh)

        return seen

    for layer in layers(model):
        if only is not None and layer.name not in only:
            continue
        product = made.get_submodule(layer.name)
        if isinstance(product, Conv2d) or (layer.grouped and isinstance(product, Linear)):
            slots[layer.name].keeps = True
            product.register_forward_hook(watch(layer.name))
    generator = torch.Generator().manual_seed(seed)
    for batch in images.split(BATCH_SIZE):
        with torch.enable_grad():
            logits = made(batch.to(device, torch.float32).requires_grad_())
            (fisher_draw(logits.detach(), generator) * logits).sum().backward()
    return found


def _inputs(product: nn.Module, x: Tensor) -> Float[Tensor, "tokens inputs"]:
    """Return the inputs that each output of a product is computed from."""
    if isinstance(product, Conv2d):
        assert not isinstance(product.padding, str)  # timm's are numbers
        geometry = (product.kernel_size, product.dilation, product.padding, product.stride)
        x = F.unfold(x, *geometry).transpose(1, 2)
    return x.flatten(0, -2)


class StraightThrough(nn.Module):
    """A slot that quantizes forward and lets gradients pass as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.slot: nn.Module = nn.Identity()
        self.keeps = False
        """Whether what it quantized last is kept until it is taken."""
        self._kept: Tensor | None = None

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        with torch.no_grad():
            quantized = self.slot(x)
            self._kept = quantized if self.keeps else None
            error = quantized - x
        return x + error  # type: ignore[no-any-return]

    def taken(self) -> Float[Tensor, "images ..."]:
        """Return what was quantized last, and keep it no longer."""
        kept, self._kept = self._kept, None
        assert kept is not None  # the slot's layer has just run
        return kept


def middle(candidates: Candidates) -> Allocation:
    """Return the allocation of the middle number of groups everywhere."""
    counts = sorted(candidates.num_groups)
    return uniform(candidates.layers, counts[len(counts) // 2])
