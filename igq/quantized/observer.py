"""One pass over the calibration images that collects the ranges that quantizers are fitted to."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.checks import check_images
from igq.errors import InvalidArgumentError
from igq.grouping import grouping_of
from igq.layer import Layer
from igq.modules import Observer
from igq.quantized.swap import rotated, with_slots
from igq.scheme import Scheme
from igq.vit import layers

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Ranges:
    """(min, max) of each slice in each image, for every layer whose bounds are fitted.

    `values` is layer name -> (images, slices, 2), in the units of the activation. Layers whose
    slices take their own range in every image (q, k, v, the classifier's input, contiguous groups)
    have none.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> ranges = igq.observe(vit, torch.rand(4, 1, 8, 8), igq.Scheme.PAPER)
    >>> ranges["blocks.0.attn.qkv"].shape  # 12 channels
    torch.Size([4, 12, 2])
    """

    layers: tuple[Layer, ...]
    scheme: Scheme
    values: Mapping[str, Float[Tensor, "images slices 2"]]

    def __getitem__(self, name: str) -> Float[Tensor, "images slices 2"]:
        return self.values[name]


@torch.inference_mode()
def observe(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    scheme: Scheme = Scheme.BEST,
    batch_size: int = BATCH_SIZE,
) -> Ranges:
    """Run the full-precision model once over calibration images and keep every slice's range.

    The images are in the model's own normalisation; no labels are needed. The model is untouched.

    Raises:
        InvalidArgumentError: there are no images, or other images than the model takes, or the
            model is rotated otherwise.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> ranges = igq.observe(vit, torch.rand(4, 1, 8, 8), igq.Scheme.PAPER)
    >>> ranges["blocks.0.attn.softmax"].shape  # 3 heads x 17 queries
    torch.Size([4, 51, 2])
    """
    check_images(model, images)
    if len(images) == 0:
        raise InvalidArgumentError("calibration needs at least 1 image, but got 0.")
    model = rotated(model, scheme.rotation)
    listed = layers(model)
    groupings = ((layer.name, grouping_of(layer, scheme)) for layer in listed)
    observers = {name: Observer(grouping) for name, grouping in groupings if grouping.fitted}
    observed = with_slots(model, lambda layer: observers.get(layer.name, nn.Identity()))
    device = next(model.parameters()).device
    for batch in images.split(batch_size):
        observed(batch.to(device))
    values = {name: seen.ranges().cpu() for name, seen in observers.items()}
    return Ranges(listed, scheme, values)
