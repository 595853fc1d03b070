"""The distance of a quantized model from full precision, block by block: the loss of tuning."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from igq.correction.gram import BATCH_SIZE
from igq.vit import stages

KEPT = 2**30
"""Bytes of full-precision outputs that are kept over all steps (our choice)."""
ACTIVATIONS = 2**31
"""Bytes of activations above which they are computed twice, stage by stage (our choice)."""
SAVED_PER_OUTPUT = 16
"""Values that a stage keeps for its gradients, for each value of its output: 15.2 in a block of
ViT-S and ViT-B with 197 tokens (counted)."""


class Targets:
    """The outputs of every stage of the full-precision model, for each image.

    They are kept for all images where they fit in `KEPT` bytes: an image comes back many times.
    """

    def __init__(self, full: nn.Module, images: Tensor) -> None:
        self._full, self._images = full, images
        self._device = next(full.parameters()).device
        self._kept: list[Tensor] = []
        first = self._computed(images[:BATCH_SIZE])
        each = sum(output[:1].nbytes for output in first)
        if each * len(images) <= KEPT:
            later = images[BATCH_SIZE:].split(BATCH_SIZE)
            rest = [self._computed(some) for some in later if len(some)]
            self._kept = [torch.cat(outputs) for outputs in zip(first, *rest, strict=True)]

    def inputs(self, drawn: list[int]) -> Tensor:
        """Return some of the images, on the model's device."""
        return self._images[drawn].to(self._device, torch.float32)

    def of(self, drawn: list[int]) -> list[Tensor]:
        """Return the outputs of each stage for some of the images."""
        return [kept[drawn] for kept in self._kept] or self._computed(self._images[drawn])

    @torch.no_grad()
    def _computed(self, images: Tensor) -> list[Tensor]:
        x, outputs = images.to(self._device, torch.float32), []
        for stage in stages(self._full):
            x = stage(x)
            outputs.append(x)
        return outputs


def discrepancy(targets: Sequence[Tensor], made: nn.Module, images: Tensor) -> Tensor:
    """Return the mean over stages of the squared error, relative to each token's size.

    Where the activations of all stages are large, a stage's own are computed again on the way
    back, so that only one stage holds them at a time.
    """
    y, total = images, images.new_zeros(())
    again = sum(target.nbytes for target in targets) * SAVED_PER_OUTPUT > ACTIVATIONS
    for x, stage in zip(targets, stages(made), strict=True):
        y = checkpoint(stage, y, use_reentrant=False) if again else stage(y)
        spread = x.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(x.dtype).eps)
        total = total + ((y - x) / spread).square().mean()
    return total / len(targets)
