"""The distance of a quantized model's predictions from the full-precision model's.

The discrepancy of an image is KL(p || q) in nats, p the full-precision probabilities and q the
quantized ones (Eq. 9). A score keeps the value of each image, so that two models can be compared
in pairs on the same images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from statistics import fmean
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from igq.checks import check_devices, check_images
from igq.errors import InvalidArgumentError
from igq.progress import Progress, part, silent

BATCH_SIZE = 32
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Score:
    """The scores of a model on a set of images.

    `kls` are (images,) in nats (Eq. 9), `correct` (images,) whether the label is predicted.

    >>> Score(kls=torch.tensor([0.5, 1.0]), correct=torch.tensor([True, False]))
    Score(kl=0.7500, top1=0.5000)
    """

    kls: Float[Tensor, " images"] | None
    """KL to the full-precision predictions, image by image; None without a reference."""
    correct: Bool[Tensor, " images"] | None
    """Whether the label is predicted, image by image; None without labels."""

    @property
    def kl(self) -> float | None:
        """Mean KL in nats."""
        return None if self.kls is None else self.kls.double().mean().item()

    @property
    def top1(self) -> float | None:
        """The share of images whose label is predicted, from 0 to 1."""
        return None if self.correct is None else self.correct.double().mean().item()

    def __repr__(self) -> str:
        kl = "None" if self.kl is None else f"{self.kl:.4f}"
        top1 = "None" if self.top1 is None else f"{self.top1:.4f}"
        return f"Score(kl={kl}, top1={top1})"


@dataclass(frozen=True, repr=False)
class Observation:
    """The effect of quantization on images, one after the other.

    >>> first, second = Observation((0.5,), (2.0,)), Observation((1.0,), (4.0,))
    >>> (first + second).kl, len(first + second)
    (0.75, 2)
    """

    kls: tuple[float, ...] = ()
    """KL to the full-precision predictions, in nats (Eq. 9)."""
    logit_mses: tuple[float, ...] = ()
    """Mean squared change of the logits; empty in studies that did not measure it."""

    def __len__(self) -> int:
        return len(self.kls)

    def __add__(self, other: "Observation") -> "Observation":
        return Observation(self.kls + other.kls, self.logit_mses + other.logit_mses)

    @property
    def kl(self) -> float:
        """Mean KL in nats; of at least one image."""
        return fmean(self.kls)

    def __repr__(self) -> str:
        mean = f", kl={self.kl:.4g}" if self.kls else ""
        return f"Observation(images={len(self)}{mean})"


@contextmanager
def for_evaluation(model: nn.Module) -> Iterator[None]:
    """Have a model compute as for evaluation, without dropout; it is as before in the end.

    Raises:
        UnsupportedModelError: its parameters are on several devices.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    >>> with for_evaluation(model):
    ...     model[1].training
    False
    >>> model[1].training
    True
    """
    check_devices(model)
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def evaluating(function: Callable[..., R]) -> Callable[..., R]:
    """Have a function's first argument, a model, compute as for evaluation while it runs."""

    @wraps(function)
    def run(model: nn.Module, *arguments: Any, **options: Any) -> R:
        with for_evaluation(model):
            return function(model, *arguments, **options)

    return run


@torch.inference_mode()
@evaluating
def log_probabilities(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
    padded_to: int | None = None,
) -> Float[Tensor, "images classes"]:
    """Return the model's log probabilities in nats, on the CPU.

    The last batch is padded, to the size of the others or to `padded_to`, for images that are a
    part of more.
    """
    device = next(model.parameters()).device
    outputs: list[Tensor] = []
    size = padded_to or min(batch_size, len(images))
    batches = images.split(batch_size)
    for number, batch in enumerate(batches, start=1):
        predicted = model(padded(batch, size).to(device))[: len(batch)]
        outputs.append(predicted.float().log_softmax(-1).cpu())
        progress(number / len(batches))
    return torch.cat(outputs)


def padded(batch: Float[Tensor, "images ..."], size: int) -> Float[Tensor, "size ..."]:
    """Return a batch with its last image repeated, as a compiled model takes one size."""
    return torch.cat((batch, batch[-1:].expand(size - len(batch), *batch.shape[1:])))


def divergences(
    reference: Float[Tensor, "images classes"], quantized: Float[Tensor, "images classes"]
) -> Float[Tensor, " images"]:
    """Return KL(reference || quantized) of each image in nats, from log probabilities (Eq. 9)."""
    return F.kl_div(quantized, reference, log_target=True, reduction="none").sum(-1)


def logit_mse(
    reference: Float[Tensor, "images classes"], quantized: Float[Tensor, "images classes"]
) -> Float[Tensor, " images"]:
    """Return the mean squared change of each image's logits, from log probabilities.

    Logits are compared up to a constant, which predictions do not depend on. Twice the KL at a
    temperature T, times T^2, tends to it as T grows; it scatters less than the KL at 1 (Eq. 9),
    which few classes decide.

    >>> logit_mse(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]])).tolist()
    [1.0]
    """
    return (quantized - reference).var(-1, unbiased=False)


def observation(
    reference: Float[Tensor, "images classes"], quantized: Float[Tensor, "images classes"]
) -> Observation:
    """Return the KL and logit MSE of each image, from log probabilities.

    Raises:
        FloatingPointError: a KL or logit MSE is not finite.
    """
    kls, mses = divergences(reference, quantized), logit_mse(reference, quantized)
    for name, values in (("KL", kls), ("logit MSE", mses)):
        if not values.isfinite().all():
            raise FloatingPointError(f"the {name} of an image is not finite")
    return Observation(tuple(kls.tolist()), tuple(mses.tolist()))


def accuracy(
    log_probabilities: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]
) -> float:
    """Return top-1: the share of images whose label is the likeliest class, from 0 to 1."""
    return (log_probabilities.argmax(-1) == labels).double().mean().item()


def evaluate(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    reference: nn.Module | Float[Tensor, "images classes"] | None = None,
    labels: Int[Tensor, " images"] | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
) -> Score:
    """Score a model on images: KL to `reference` (a model, or its log probabilities) and top-1.

    Raises:
        InvalidArgumentError: there are no images, or other images than the model takes, or not one
            label or reference for each of them, or a label that is no class.
        UnsupportedModelError: a model is on several devices, or not in the images' type.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> igq.evaluate(vit, images, reference=vit, labels=vit(images).argmax(-1))
    Score(kl=0.0000, top1=1.0000)
    """
    check_images(model, images)
    if len(images) == 0:
        raise InvalidArgumentError("evaluation needs at least 1 image, but got 0.")
    if labels is not None and len(labels) != len(images):
        raise InvalidArgumentError(
            f"`labels` must be one for each of the {len(images)} images, but got {len(labels)}."
        )
    if isinstance(reference, nn.Module):
        check_images(reference, images)
    passes = 2 if isinstance(reference, nn.Module) else 1
    outputs = log_probabilities(model, images, batch_size, part(progress, 0, passes))
    if isinstance(reference, nn.Module):
        reference = log_probabilities(reference, images, batch_size, part(progress, 1, passes))
    if reference is not None and reference.shape != outputs.shape:
        raise InvalidArgumentError(
            f"`reference` must have the shape of the predictions, {list(outputs.shape)}, "
            f"but has {list(reference.shape)}."
        )
    if labels is not None and not ((labels >= 0) & (labels < outputs.shape[1])).all():
        odd = labels[(labels < 0) | (labels >= outputs.shape[1])][0].item()
        raise InvalidArgumentError(
            f"`labels` must be classes of the model, from 0 to {outputs.shape[1] - 1}, but one is "
            f"{odd}."
        )
    return Score(
        kls=None if reference is None else divergences(reference, outputs),
        correct=None if labels is None else outputs.argmax(-1) == labels,
    )
