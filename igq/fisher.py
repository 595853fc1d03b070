"""The harm table as gradients predict it, to second order in what quantization changes.

Near full precision the KL of Eq. 9 is half a square: with F = diag(p) - p p' (the Fisher
information of the logits) and J the derivative of the logits by a layer's activation, an error e
of that activation harms by e' J' F J e / 2. A vector u drawn so that E[u u'] = F makes that the
mean of (g . e)^2 / 2 with g the gradient of u . logits: one backward pass gives it for every layer
and every number of groups at once, where measuring takes a pass for each.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.candidates import Candidates
from igq.errors import InvalidArgumentError
from igq.grouping import Quantizer
from igq.modules import slot_of
from igq.settings import Choice
from igq.vit import with_slots

DRAWS = 8
"""Vectors u for each image (our choice)."""
FORWARDS_A_CHOICE, FORWARDS_A_DRAW = 0.5, 2.5
"""Forward passes that take as long as an image's errors with one number of groups, and as a draw
(`python -m benchmarks.harms`)."""
MEMORY = 2**30
"""Bytes of errors that are held at a time: of every layer, for some images and choices."""


def predicted_sensitivity(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[Choice, float]]:
    """What `sensitivity` measures, predicted from gradients: KL in nats, to second order.

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
    >>> harm = igq.predicted_sensitivity(vit, candidates, images)
    >>> harm["blocks.0.mlp.fc1"].keys()
    dict_keys([2, 4])
    """
    if len(images) == 0:
        raise InvalidArgumentError("sensitivity needs at least 1 image, but got 0.")
    if draws < 1:
        raise InvalidArgumentError(f"`draws` must be at least 1, but got {draws}.")
    grouped = [layer for layer in candidates.layers if layer.grouped]
    choices = list(candidates.num_groups)
    bytes_of_one = 4 * sum(layer.tokens * layer.channels for layer in grouped)
    at_once = min(len(choices), max(1, MEMORY // bytes_of_one))
    size = max(1, MEMORY // (bytes_of_one * at_once))
    full = copy.deepcopy(model).float().eval().requires_grad_(False)
    table: dict[str, dict[Choice, float]] = {layer.name: {} for layer in grouped}
    for start in range(0, len(choices), at_once):
        some = choices[start : start + at_once]
        slots = {
            layer.name: _Errors([candidates.quantizers[layer.name][g] for g in some])
            for layer in grouped
        }

        def heard(seen: int, start: int = start, count: int = len(some)) -> None:
            progress((start + count * seen / len(images)) / len(choices))

        _add_up(full, slots, images.split(size), draws, seed, heard)
        for name, slot in slots.items():
            harms = (slot.harms / (len(images) * draws)).tolist()
            table[name] |= dict(zip(some, harms, strict=True))
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


def predicted_forwards(images: int, choices: int, draws: int = DRAWS) -> int:
    """Image-forward-passes that take as long as `predicted_sensitivity` with so many choices."""
    return round(images * (1 + FORWARDS_A_CHOICE * choices + FORWARDS_A_DRAW * draws))


def fisher_draw(
    logits: Float[Tensor, "images classes"], generator: torch.Generator
) -> Float[Tensor, "images classes"]:
    """U with E[u] = 0 and E[u u'] = diag(p) - p p', the Fisher information of each image's logits.

    >>> fisher_draw(torch.zeros(1, 4), torch.Generator().manual_seed(0)).sum().abs() < 1e-6
    tensor(True)
    """
    p = logits.softmax(-1)
    z = p.sqrt() * torch.randn(p.shape, generator=generator).to(p)
    return z - p * z.sum(-1, keepdim=True)


class _Errors(nn.Module):
    """Passes an activation on; sums up, at each backward pass, what each quantizer would harm."""

    harms: Tensor

    def __init__(self, quantizers: Sequence[Quantizer]) -> None:
        super().__init__()
        self._slots = nn.ModuleList(slot_of(quantizer) for quantizer in quantizers)
        self.register_buffer("harms", torch.zeros(len(quantizers), dtype=torch.float64))

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """The activation, as one that only this layer has."""
        with torch.no_grad():
            errors = torch.stack([(slot(x) - x).flatten(1) for slot in self._slots])
        own = x.clone()

        def add(gradient: Tensor) -> None:
            along = torch.einsum("cin,in->ci", errors, gradient.flatten(1))
            self.harms += along.double().square().sum(1) / 2

        own.register_hook(add)
        return own
