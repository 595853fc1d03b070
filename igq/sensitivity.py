"""The harm table: how far the predictions move when one layer alone is quantized (Eq. 9)."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.candidates import Candidates
from igq.errors import InvalidArgumentError
from igq.evaluation import BATCH_SIZE, divergences, padded
from igq.settings import Choice
from igq.vit import EAGER, Execution, accelerate, assemble, set_quantizers, stage_of, stages


@torch.inference_mode()
def sensitivity(
    model: nn.Module,
    candidates: Candidates,
    images: Float[Tensor, "images channels height width"],
    batch_size: int = BATCH_SIZE,
    execution: Execution = EAGER,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[Choice, float]]:
    """KL in nats when a layer has g groups and all else is in full precision (Eq. 9).

    What comes before the layer is computed once for each batch of images: a layer of block k
    costs the blocks from k on. The memory for it is one activation per block and batch. How the
    models are computed is up to `execution`.

    Raises:
        InvalidArgumentError: there are no images.
        UnsupportedModelError: the model is not one whose layers can be listed.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> harm = igq.sensitivity(vit, candidates, images)
    >>> harm["blocks.0.mlp.fc1"].keys()
    dict_keys([2, 4])
    """
    if len(images) == 0:
        raise InvalidArgumentError("sensitivity needs at least 1 image, but got 0.")
    grouped = [layer for layer in candidates.layers if layer.grouped]
    table: dict[str, dict[Choice, float]] = {
        layer.name: dict.fromkeys(candidates.num_groups, 0.0) for layer in grouped
    }
    steps = len(grouped) * len(candidates.num_groups) * -(-len(images) // batch_size)
    done = 0
    capacity = max(candidates.num_groups)
    plain = stages(accelerate(assemble(model, {}, {}), execution, capacity))
    anything = {name: next(iter(fitted.values())) for name, fitted in candidates.quantizers.items()}
    harmed = accelerate(assemble(model, anything, {}), execution, capacity)
    device = next(model.parameters()).device
    size = min(batch_size, len(images))
    for batch in images.split(batch_size):
        inputs = [padded(batch, size).to(device)]
        for stage in plain:
            inputs.append(stage(inputs[-1]))
        reference = inputs.pop()[: len(batch)].float().log_softmax(-1)
        for layer in grouped:
            first = stage_of(layer) % len(plain)
            for g, quantizer in candidates.quantizers[layer.name].items():
                set_quantizers(harmed, {layer.name: quantizer})
                suffix = (stages(harmed)[first], *plain[first + 1 :])
                outputs = _run(suffix, inputs[first])[: len(batch)].float().log_softmax(-1)
                table[layer.name][g] += divergences(reference, outputs).sum().item() / len(images)
                done += 1
                progress(done / steps)
    return table


def sensitivity_forwards(model: nn.Module, candidates: Candidates, images: int) -> float:
    """Image-forward-passes that `sensitivity` takes on so many images: parts of passes add up."""
    steps = len(stages(model))
    grouped = (layer for layer in candidates.layers if layer.grouped)
    first = [stage_of(layer) % steps for layer in grouped]
    shares = sum(1 - at / steps for at in first) * len(candidates.num_groups)
    return images * (1 + shares)


def _run(steps: Iterable[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x
