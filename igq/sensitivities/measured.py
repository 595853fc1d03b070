"""The sensitivity of each layer: the KL when that layer alone is quantized (Eq. 9)."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.errors import InvalidArgumentError
from igq.evaluation import BATCH_SIZE, divergences, padded
from igq.layer import Layer, grouped
from igq.progress import Progress, silent
from igq.quantized import (
    EAGER,
    Candidates,
    Execution,
    accelerate,
    assemble,
    rotated,
    set_quantizers,
)
from igq.settings import Setting
from igq.vit import stage_of, stages


@torch.inference_mode()
def sensitivity(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    batch_size: int = BATCH_SIZE,
    execution: Execution = EAGER,
    progress: Progress = silent,
) -> dict[str, dict[Setting, float]]:
    """Return the KL in nats when a layer alone is quantized, with g groups (Eq. 9).

    The blocks before the layer are computed once for each batch of images: a layer of block k
    costs the blocks from k on, and the memory of one activation per block and batch.

    Raises:
        InvalidArgumentError: there are no images.
        UnsupportedModelError: the model is not one whose layers can be listed.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> table = igq.sensitivity(vit, candidates, images)
    >>> [str(setting) for setting in table["blocks.0.mlp.fc1"]]
    ['2', '4']
    """
    if len(images) == 0:
        raise InvalidArgumentError("sensitivity needs at least 1 image, but got 0.")
    model = rotated(model, candidates.scheme.rotation)
    searched = grouped(candidates.layers)
    settings = {g: Setting(num_groups=g) for g in candidates.num_groups}
    table: dict[str, dict[Setting, float]] = {
        layer.name: dict.fromkeys(settings.values(), 0.0) for layer in searched
    }
    steps = len(searched) * len(candidates.num_groups) * -(-len(images) // batch_size)
    done = 0
    capacity = max(candidates.num_groups)
    plain = stages(accelerate(assemble(model, {}, {}), execution, capacity))
    anything = {name: next(iter(fitted.values())) for name, fitted in candidates.quantizers.items()}
    quantized = accelerate(assemble(model, anything, {}), execution, capacity)
    device = next(model.parameters()).device
    size = min(batch_size, len(images))
    for batch in images.split(batch_size):
        inputs = [padded(batch, size).to(device)]
        for stage in plain:
            inputs.append(stage(inputs[-1]))
        reference = inputs.pop()[: len(batch)].float().log_softmax(-1)
        for layer in searched:
            first = stage_of(layer) % len(plain)
            for g, quantizer in candidates.quantizers[layer.name].items():
                set_quantizers(quantized, {layer.name: quantizer})
                suffix = (stages(quantized)[first], *plain[first + 1 :])
                outputs = _run(suffix, inputs[first])[: len(batch)].float().log_softmax(-1)
                kl = divergences(reference, outputs).sum().item() / len(images)
                table[layer.name][settings[g]] += kl
                done += 1
                progress(done / steps)
    return table


def sensitivity_passes(
    model: nn.Module, layers: Iterable[Layer], counts: int, images: int
) -> float:
    """Return the image-forward-passes of `sensitivity`; parts of passes add up.

    `counts` is how many numbers of groups the candidates have.
    """
    steps = len(stages(model))
    first = [stage_of(layer) % steps for layer in grouped(layers)]
    shares = sum(1 - at / steps for at in first) * counts
    return images * (1 + shares)


def _run(steps: Iterable[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x
