"""Weights corrected for the change of predictions that quantization makes; for every allocation.

Each step uses the calibration images alone and a model whose activations are quantized:

1. Rounding (`igq.correction.gram`): codes of the patch embedding and of the linear layers of the
   blocks are chosen for least error of their outputs, each token weighted by the gradient of the
   predictions at it. In the last blocks only the class token matters, and tokens with huge
   activations matter little.
2. Tuning: the one-dimensional parameters (the affine parameters of normalisations, biases, the
   scale of each output channel of a weight) follow the gradient until every block's output is
   nearest to full precision's. Codes stay as they are.

Both take the middle one of the candidates' numbers of groups everywhere, so that the answer does
not depend on the allocation that a study ends with.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.correction.discrepancy import Targets, discrepancy
from igq.correction.gram import BATCH_SIZE, StraightThrough, middle, rounded_weights
from igq.errors import InvalidArgumentError
from igq.grouping import Quantizer
from igq.modules import slot_of
from igq.progress import Progress, silent
from igq.quantized import Candidates, assemble, rotated, with_slots
from igq.scheme import TUNING_STEPS
from igq.threads import with_threads

LEARNING_RATE = 2e-3
"""Learning rate of the first step where errors are as large as activations; less elsewhere."""


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
    """Rotated as the candidates' scheme says."""
    weights: Mapping[str, QuantizedTensor]

    def quantize(self, quantizers: Mapping[str, Quantizer]) -> nn.Module:
        """Return a quantized model with these weights; a copy, which shares nothing."""
        return assemble(copy.deepcopy(self.model), quantizers, self.weights)


@with_threads(1)
def correct(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    weight_bits: int,
    steps: int = TUNING_STEPS,
    seed: int = 0,
    progress: Progress = silent,
) -> Corrected:
    """Quantize weights so that predictions change least; the original is untouched.

    The images are those of the calibration, in the model's own normalisation. Without `steps`
    nothing is tuned. The same arguments give the same answer on the same processor: on a CPU one
    thread computes, so that the answer does not depend on how many there are.

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
    >>> corrected = igq.correct(vit, candidates, images, weight_bits=4, steps=2)
    >>> chosen = candidates.select(igq.uniform(candidates.layers, 4))
    >>> corrected.quantize(chosen)(images).shape
    torch.Size([4, 10])
    """
    if len(images) == 0:
        raise InvalidArgumentError("correction needs at least 1 calibration image, but got 0.")
    if steps < 0:
        raise InvalidArgumentError(f"`steps` must be 0 or more, but got {steps}.")
    kind = next(p.dtype for p in model.parameters() if p.is_floating_point())
    model = rotated(model, candidates.scheme.rotation)
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


def correction_passes(images: int, steps: int = TUNING_STEPS) -> float:
    """Return the image-forward-passes that take about as long as `correct`.

    A backward pass counts as two. Rounding takes an image forward and back, and a step of tuning
    takes a batch so; tuning takes every image through the full-precision model once.

    >>> correction_passes(32, steps=60), correction_passes(32, steps=0)
    (1568.0, 96.0)
    """
    tuning = images + 3 * steps * min(BATCH_SIZE, images) if steps else 0
    return float(3 * images + tuning)


def vectors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that tuning moves, which have one dimension."""
    return {name: p for name, p in model.named_parameters() if p.ndim == 1}


class _Tuning:
    """A quantized model whose one-dimensional parameters are free."""

    def __init__(
        self, model: nn.Module, weights: Mapping[str, QuantizedTensor], candidates: Candidates
    ) -> None:
        self._weights = weights
        device = next(model.parameters()).device
        slots = {layer.name: StraightThrough() for layer in candidates.layers}
        self.model = with_slots(model, lambda layer: slots[layer.name], weights)
        for name, quantizer in candidates.select(middle(candidates)).items():
            slots[name].slot = slot_of(quantizer).to(device)
        self._gains = {
            n: nn.Parameter(torch.ones_like(w.scale, device=device)) for n, w in weights.items()
        }
        self.parameters = [p.requires_grad_() for p in vectors(model).values()]
        self.parameters += self._gains.values()

    def rescale(self) -> None:
        """Compute the weights from the current scales."""
        for name, gain in self._gains.items():
            product = self.model.get_submodule(name)
            fixed = self._weights[name].dequantize().to(gain)
            product.weight = fixed * gain.view(-1, *[1] * (fixed.ndim - 1))

    def weights(self) -> dict[str, QuantizedTensor]:
        """Return the weights with the scales that were found."""
        return {
            name: replace(w, scale=(w.scale * self._gains[name].detach().to(w.scale)))
            for name, w in self._weights.items()
        }


def _tune(full: nn.Module, tuning: _Tuning, images: Tensor, steps: int, seed: int) -> Iterator[int]:
    """Move the free parameters, step by step, with Adam."""
    targets = Targets(full, images)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(tuning.parameters, betas=(0.9, 0.99))
    order: list[int] = []
    first: float | None = None
    for step in range(steps):
        if len(order) < BATCH_SIZE:
            order += torch.randperm(len(images), generator=generator).tolist()
        drawn, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        tuning.rescale()
        with torch.enable_grad():
            loss = discrepancy(targets.of(drawn), tuning.model, targets.inputs(drawn))
            first = loss.item() if first is None else first
            rate = LEARNING_RATE * math.sqrt(first) * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield step
