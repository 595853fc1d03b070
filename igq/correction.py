"""Weights corrected for what quantization does to the predictions; once, for every allocation.

Each step uses the calibration images alone and a model whose activations are quantized:

1. Rounding (`igq.rounding`): codes of the patch embedding and of the linear layers of the blocks
   are chosen for least error of their outputs, each token weighted by the gradient of the
   predictions at it. In the last blocks only the class token matters, and tokens with huge
   activations matter little.
2. Tuning: what is one-dimensional (the affine parameters of normalisations, biases, the scale of
   each output channel of a weight) follows the gradient until every block's output is nearest to
   full precision's. Codes stay as they are.

Both take the middle one of the candidates' numbers of groups everywhere, so that what is found
does not depend on the allocation that a study ends with.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from igq.affine import QuantizedTensor
from igq.allocation import Allocation, uniform
from igq.candidates import Candidates
from igq.errors import InvalidArgumentError
from igq.fisher import fisher_draw
from igq.grouping import Quantizer
from igq.modules import Conv2d, Linear, slot_of
from igq.rounding import round_weight
from igq.vit import layers, quantize_weights, stages, with_slots

STEPS = 60
BATCH_SIZE = 8
LEARNING_RATE = 2e-3
"""Of the first step, where errors are as large as activations; less where they are smaller."""
UNIFORM_SHARE = 0.05
"""Share of a token's weight that does not depend on its gradient."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """A full-precision model whose normalisations and biases have moved, and its weights' codes.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=4)
    >>> corrected = igq.correct(vit, candidates, images, weight_bits=4, steps=0)
    >>> corrected.weights["blocks.0.mlp.fc1"].bits
    4
    """

    model: nn.Module
    weights: Mapping[str, QuantizedTensor]


def correct(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    weight_bits: int,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Corrected:
    """Quantize weights so that predictions change least; the original is untouched.

    The images are those of the calibration, in the model's own normalisation. Without `steps`
    nothing is tuned. The same arguments give the same answer on the same machine.

    Raises:
        InvalidArgumentError: `weight_bits` out of range, no images, or fewer than 0 steps.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
        WeightsError: a weight holds NaN or infinity.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=4)
    >>> corrected = correct(vit, candidates, images, weight_bits=4, steps=2)
    >>> chosen = candidates.select(igq.uniform(igq.layers(vit), 4))
    >>> igq.vit.assemble(corrected.model, chosen, corrected.weights)(images).shape
    torch.Size([4, 10])
    """
    if len(images) == 0:
        raise InvalidArgumentError("correction needs at least 1 calibration image, but got 0.")
    if steps < 0:
        raise InvalidArgumentError(f"`steps` must be 0 or more, but got {steps}.")
    kind = next(p.dtype for p in model.parameters() if p.is_floating_point())
    tuned = copy.deepcopy(model).float().eval().requires_grad_(False)
    weights = rounded_weights(tuned, candidates, images, weight_bits, seed)
    progress(1 / (steps + 1))
    if steps:
        full = copy.deepcopy(tuned)
        tuning = _Tuning(tuned, weights, candidates)
        for step in _tune(full, tuning, images, steps, seed):
            progress((step + 2) / (steps + 1))
        weights = tuning.weights()
    return Corrected(tuned.to(kind).requires_grad_(False), weights)


def rounded_weights(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    weight_bits: int,
    seed: int = 0,
) -> dict[str, QuantizedTensor]:
    """Quantized weights of every layer that has one: rounded for least error of their outputs.

    The head, whose inputs are few, keeps its nearest codes.
    """
    weights = quantize_weights(model, weight_bits)
    for name, gram in grams(model, candidates.select(_middle(candidates)), images, seed).items():
        weight = model.get_parameter(f"{name}.weight")
        rounded = round_weight(weight.flatten(1), gram, weight_bits)
        weights[name] = replace(rounded, codes=rounded.codes.view(weight.shape))
    return weights


def vectors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that tuning moves: those of one dimension."""
    return {name: p for name, p in model.named_parameters() if p.ndim == 1}


class _StraightThrough(nn.Module):
    """A slot that quantizes forward and lets gradients pass as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.slot: nn.Module = nn.Identity()

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        with torch.no_grad():
            self.seen: Tensor = self.slot(x)
            error = self.seen - x
        return x + error  # type: ignore[no-any-return]


def grams(
    model: nn.Module,
    quantizers: Mapping[str, Quantizer],
    images: Float[Tensor, "images channels height width"],
    seed: int,
) -> dict[str, Float[Tensor, "inputs inputs"]]:
    """The Gram matrix of the quantized inputs of the patch embedding and each layer in a block.

    A token's weight is the norm of the gradient at the layer's output of logits' u, with u a
    `fisher_draw`.
    """
    slots = {name: _StraightThrough() for name in quantizers}
    made = with_slots(model, lambda layer: slots.get(layer.name, nn.Identity()))
    device = next(model.parameters()).device
    for name, quantizer in quantizers.items():
        slots[name].slot = slot_of(quantizer).to(device)
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def seen(product: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            x, axis = _inputs(product, slots[name].seen), 1 if isinstance(product, Conv2d) else -1

            def weigh(gradient: Tensor) -> None:
                weight = gradient.movedim(axis, -1).flatten(0, -2).norm(dim=-1, keepdim=True)
                weight = weight / weight.mean().clamp(min=torch.finfo(weight.dtype).tiny)
                weight = (1 - UNIFORM_SHARE) * weight + UNIFORM_SHARE
                found[name] = found.get(name, 0) + ((x * weight).T @ x).double()

            output.register_hook(weigh)

        return seen

    for layer in layers(model):
        product = made.get_submodule(layer.name)
        if isinstance(product, Conv2d) or (layer.grouped and isinstance(product, Linear)):
            product.register_forward_hook(watch(layer.name))
    generator = torch.Generator().manual_seed(seed)
    for batch in images.split(BATCH_SIZE):
        with torch.enable_grad():
            logits = made(batch.to(device, torch.float32).requires_grad_())
            (fisher_draw(logits.detach(), generator) * logits).sum().backward()
    return found


def _inputs(product: nn.Module, x: Tensor) -> Float[Tensor, "tokens inputs"]:
    """What each output of a product is computed from."""
    if isinstance(product, Conv2d):
        assert not isinstance(product.padding, str)  # timm's are numbers
        geometry = (product.kernel_size, product.dilation, product.padding, product.stride)
        x = F.unfold(x, *geometry).transpose(1, 2)
    return x.flatten(0, -2)


def _middle(candidates: Candidates) -> Allocation:
    """The middle number of groups everywhere."""
    choices = sorted(candidates.num_groups)
    return uniform(candidates.layers, choices[len(choices) // 2])


class _Tuning:
    """A quantized model whose one-dimensional parameters are free."""

    def __init__(
        self, model: nn.Module, weights: Mapping[str, QuantizedTensor], candidates: Candidates
    ) -> None:
        self._weights = weights
        device = next(model.parameters()).device
        slots = {layer.name: _StraightThrough() for layer in candidates.layers}
        self.model = with_slots(model, lambda layer: slots[layer.name], weights)
        for name, quantizer in candidates.select(_middle(candidates)).items():
            slots[name].slot = slot_of(quantizer).to(device)
        self._gains = {
            n: nn.Parameter(torch.ones_like(w.scale, device=device)) for n, w in weights.items()
        }
        self.parameters = [p.requires_grad_() for p in vectors(model).values()]
        self.parameters += self._gains.values()

    def rescale(self) -> None:
        """Take the weights with the scales as they are now."""
        for name, gain in self._gains.items():
            product = self.model.get_submodule(name)
            fixed = self._weights[name].dequantize().to(gain)
            product.weight = fixed * gain.view(-1, *[1] * (fixed.ndim - 1))

    def weights(self) -> dict[str, QuantizedTensor]:
        """The weights with the scales that were found."""
        return {
            name: replace(w, scale=(w.scale * self._gains[name].detach().to(w.scale)))
            for name, w in self._weights.items()
        }


def _tune(full: nn.Module, tuning: _Tuning, images: Tensor, steps: int, seed: int) -> Iterator[int]:
    """Move the free parameters, step by step, with Adam."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(tuning.parameters, betas=(0.9, 0.99))
    device = next(full.parameters()).device
    order: list[int] = []
    first: float | None = None
    for step in range(steps):
        if len(order) < BATCH_SIZE:
            order += torch.randperm(len(images), generator=generator).tolist()
        drawn, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        tuning.rescale()
        with torch.enable_grad():
            loss = _discrepancy(full, tuning.model, images[drawn].to(device, torch.float32))
            first = loss.item() if first is None else first
            rate = LEARNING_RATE * math.sqrt(first) * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield step


def _discrepancy(full: nn.Module, made: nn.Module, images: Tensor) -> Tensor:
    """The squared error of what a stage gives, relative to each token's own; their mean."""
    x = y = images
    total = images.new_zeros(())
    pairs = list(zip(stages(full), stages(made), strict=True))
    for reference, stage in pairs:
        with torch.no_grad():
            x = reference(x)
        y = stage(y)
        spread = x.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(x.dtype).eps)
        total = total + ((y - x) / spread).square().mean()
    return total / len(pairs)
