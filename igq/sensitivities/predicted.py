"""The sensitivity of each layer as gradients predict it, to second order.

Near full precision the KL of Eq. 9 is half a square: with F = diag(p) - p p' (the Fisher
information of the logits) and J the derivative of the logits by a layer's activation, an error e
of that activation adds e' J' F J e / 2. A vector u drawn so that E[u u'] = F makes that the mean
of (g . e)^2 / 2 with g the gradient of u . logits. One backward pass gives it for every layer and
every number of groups at once, where measuring takes a pass for each.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.errors import InvalidArgumentError
from igq.grouping import Quantizer
from igq.layer import grouped
from igq.modules import slot_of
from igq.progress import Progress, silent
from igq.quantized import Candidates, rotated, with_slots
from igq.settings import Setting
from igq.threads import with_threads

DRAWS = 8
"""Vectors u for each image (our choice)."""
PASSES_A_SETTING, PASSES_A_DRAW = 0.5, 2.5
"""Forward passes that take as long as an image's errors with one number of groups, and as a draw
(`python -m benchmarks.sensitivities`)."""
Sums = Mapping[str, Sequence[float]]
"""Layer name -> the sum over a batch's images and draws, for each number of groups."""
MEMORY = 2**30
"""Bytes of errors that are held at a time: of every layer, for some images and choices."""


def predicted_sensitivity(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, dict[Setting, float]]:
    """Predict from gradients what `sensitivity` measures: KL in nats, to second order.

    An image takes a forward and `draws` backward passes, and each candidate's error once; errors
    of large models are taken for some numbers of groups at a time, within `MEMORY`. The same
    arguments give the same answer on the same machine.

    Raises:
        InvalidArgumentError: there are no images, or fewer than 1 draw.
        UnsupportedModelError: the model is not one whose layers can be listed.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> table = igq.predicted_sensitivity(vit, candidates, images)
    >>> [str(setting) for setting in table["blocks.0.mlp.fc1"]]
    ['2', '4']
    """
    batches = range(predicted_batches(candidates, len(images)))
    sums = batch_sums(model, candidates, images, batches, draws, seed, progress)
    return predicted_from(candidates, [sums[batch] for batch in batches], len(images), draws)


def predicted_batches(candidates: Candidates, images: int) -> int:
    """Return into how many batches `batch_sums` divides so many images.

    Raises:
        InvalidArgumentError: there are no images.
    """
    if images == 0:
        raise InvalidArgumentError("sensitivity needs at least 1 image, but got 0.")
    return -(-images // _sizes(candidates)[1])


def predicted_from(
    candidates: Candidates, sums: Sequence[Sums], images: int, draws: int = DRAWS
) -> dict[str, dict[Setting, float]]:
    """Return the predicted sensitivities from the sums of all batches, in their order."""
    table: dict[str, dict[Setting, float]] = {}
    for layer in grouped(candidates.layers):
        total = [0.0] * len(candidates.num_groups)
        for batch in sums:
            total = [one + more for one, more in zip(total, batch[layer.name], strict=True)]
        means = zip(candidates.num_groups, total, strict=True)
        table[layer.name] = {Setting(num_groups=g): one / (images * draws) for g, one in means}
    return table


@with_threads(1)
def batch_sums(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    batches: Iterable[int],
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> Mapping[int, Sums]:
    """Return the sums of predicted KLs over some batches of all images, by batch.

    A batch's numbers do not depend on which others are asked for, nor on the number of threads: on
    a CPU one computes.

    Raises:
        InvalidArgumentError: there are no images, or fewer than 1 draw.
        UnsupportedModelError: the model is not one whose layers can be listed.
    """
    if draws < 1:
        raise InvalidArgumentError(f"`draws` must be at least 1, but got {draws}.")
    wanted, counts = list(batches), list(candidates.num_groups)
    searched = grouped(candidates.layers)
    at_once, size = _sizes(candidates)
    model = rotated(model, candidates.scheme.rotation)
    full = copy.deepcopy(model).float().eval().requires_grad_(False)
    sums: dict[int, dict[str, list[float]]] = {b: {} for b in wanted}
    for start in range(0, len(counts), at_once):
        some = counts[start : start + at_once]
        slots = {
            layer.name: _Errors([candidates.quantizers[layer.name][g] for g in some])
            for layer in searched
        }
        made = with_slots(full, lambda layer, slots=slots: slots.get(layer.name, nn.Identity()))  # type: ignore[misc]
        for done, batch in enumerate(wanted, start=1):
            for slot in slots.values():
                slot.sums.zero_()
            _add_up(made, images[batch * size : (batch + 1) * size], (batch, size), draws, seed)
            for name, slot in slots.items():
                sums[batch].setdefault(name, []).extend(slot.sums.tolist())
            progress((start + len(some) * done / len(wanted)) / len(counts))
    return sums


def _sizes(candidates: Candidates) -> tuple[int, int]:
    """Return how many numbers of groups, and how many images, are taken at once."""
    each = 4 * sum(layer.tokens * layer.channels for layer in grouped(candidates.layers))
    at_once = min(len(candidates.num_groups), max(1, MEMORY // each))
    return at_once, max(1, MEMORY // (each * at_once))


def _add_up(
    made: nn.Module,
    images: Float[Tensor, "images channels height width"],
    place: tuple[int, int],
    draws: int,
    seed: int,
) -> None:
    """Let every draw of every image of a batch pass backward through the slots.

    `place` is the batch's number and the size of those before it, whose draws are passed over.
    """
    device = next(made.parameters()).device
    made = made.to(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        logits = made(images.to(device, torch.float32).requires_grad_())
        before, size = place
        for _ in range(before * draws):
            torch.randn((size, logits.shape[1]), generator=generator)
        for draw in range(draws):
            direction = fisher_draw(logits.detach(), generator)
            (direction * logits).sum().backward(retain_graph=draw + 1 < draws)


def predicted_passes(images: int, counts: int, draws: int = DRAWS) -> int:
    """Return the image-forward-passes that take as long as `predicted_sensitivity`.

    `counts` is how many numbers of groups the candidates have.
    """
    return round(images * (1 + PASSES_A_SETTING * counts + PASSES_A_DRAW * draws))


def fisher_draw(
    logits: Float[Tensor, "images classes"], generator: torch.Generator
) -> Float[Tensor, "images classes"]:
    """Draw u with E[u] = 0 and E[u u'] = diag(p) - p p', the Fisher information of the logits.

    >>> fisher_draw(torch.zeros(1, 4), torch.Generator().manual_seed(0)).sum().abs() < 1e-6
    tensor(True)
    """
    p = logits.softmax(-1)
    z = p.sqrt() * torch.randn(p.shape, generator=generator).to(p)
    return z - p * z.sum(-1, keepdim=True)


class _Errors(nn.Module):
    """Passes an activation on; each backward pass adds up the loss of each quantizer."""

    sums: Tensor

    def __init__(self, quantizers: Sequence[Quantizer]) -> None:
        super().__init__()
        self._slots = nn.ModuleList(slot_of(quantizer) for quantizer in quantizers)
        self.register_buffer("sums", torch.zeros(len(quantizers), dtype=torch.float64))

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Return the activation as a tensor of this layer alone."""
        with torch.no_grad():
            errors = torch.stack([(slot(x) - x).flatten(1) for slot in self._slots])
        own = x.clone()

        def add(gradient: Tensor) -> None:
            along = torch.einsum("cin,in->ci", errors, gradient.flatten(1))
            self.sums += along.double().square().sum(1) / 2

        own.register_hook(add)
        return own
