"""The sensitivity of each layer as gradients predict it, to second order.

Near full precision the KL of Eq. 9 is half a square: with F = diag(p) - p p' (the Fisher
information of the logits) and J the derivative of the logits by a layer's activation, an error e
of that activation adds e' J' F J e / 2. A vector u drawn so that E[u u'] = F makes that the mean
of (g . e)^2 / 2 with g the gradient of u . logits. One backward pass gives it for every layer and
every number of groups at once, where measuring takes a pass for each.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

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

DRAWS = 8
"""Vectors u for each image (our choice)."""
PASSES_A_SETTING, PASSES_A_DRAW = 0.5, 2.5
"""Forward passes that take as long as an image's errors with one number of groups, and as a draw
(`python -m benchmarks.sensitivities`)."""
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
    if len(images) == 0:
        raise InvalidArgumentError("sensitivity needs at least 1 image, but got 0.")
    if draws < 1:
        raise InvalidArgumentError(f"`draws` must be at least 1, but got {draws}.")
    searched = grouped(candidates.layers)
    counts = list(candidates.num_groups)
    bytes_of_one = 4 * sum(layer.tokens * layer.channels for layer in searched)
    at_once = min(len(counts), max(1, MEMORY // bytes_of_one))
    size = max(1, MEMORY // (bytes_of_one * at_once))
    model = rotated(model, candidates.scheme.rotation)
    full = copy.deepcopy(model).float().eval().requires_grad_(False)
    table: dict[str, dict[Setting, float]] = {layer.name: {} for layer in searched}
    for start in range(0, len(counts), at_once):
        some = counts[start : start + at_once]
        slots = {
            layer.name: _Errors([candidates.quantizers[layer.name][g] for g in some])
            for layer in searched
        }

        def heard(seen: int, start: int = start, count: int = len(some)) -> None:
            progress((start + count * seen / len(images)) / len(counts))

        _add_up(full, slots, images.split(size), draws, seed, heard)
        for name, slot in slots.items():
            means = (slot.sums / (len(images) * draws)).tolist()
            settings = (Setting(num_groups=count) for count in some)
            table[name] |= dict(zip(settings, means, strict=True))
    return table


def _add_up(
    model: nn.Module,
    slots: Mapping[str, "_Errors"],
    batches: Iterable[Float[Tensor, "images channels height width"]],
    draws: int,
    seed: int,
    progress: Callable[[int], None],
) -> None:
    """Let every draw of every image pass backward through the slots."""
    device = next(model.parameters()).device
    made = with_slots(model, lambda layer: slots.get(layer.name, nn.Identity())).to(device)
    generator = torch.Generator().manual_seed(seed)
    seen = 0
    for batch in batches:
        with torch.enable_grad():
            logits = made(batch.to(device, torch.float32).requires_grad_())
            for draw in range(draws):
                direction = fisher_draw(logits.detach(), generator)
                (direction * logits).sum().backward(retain_graph=draw + 1 < draws)
        del logits  # and the errors that its graph holds, before the next batch has its own
        seen += len(batch)
        progress(seen)


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
