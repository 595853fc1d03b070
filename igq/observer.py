"""One pass over the calibration images that collects what every quantizer is fitted from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.errors import InvalidArgumentError
from igq.layers import Assignment, Layer, Slices
from igq.modules import Observer
from igq.vit import layers, with_slots

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Ranges:
    """(min, max) of each slice in each image, for every layer of a model that is fitted.

    `values` is layer name -> (images, slices, 2), in the units of the activation. What has its
    own ranges in every image (q, k, v, the classifier's input, tokens in groups) has none.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> igq.observe(vit, images)["blocks.0.attn.qkv"].shape  # 12 channels
    torch.Size([4, 12, 2])
    """

    layers: tuple[Layer, ...]
    values: Mapping[str, Float[Tensor, "images slices 2"]]

    def __getitem__(self, name: str) -> Float[Tensor, "images slices 2"]:
        return self.values[name]


@torch.inference_mode()
def observe(
    model: nn.Module,
    images: Float[Tensor, "images channels height width"],
    batch_size: int = BATCH_SIZE,
    softmax: Slices = Slices.UNIT_ROWS,
    assignment: Assignment = Assignment.LEAST_ERROR,
    inputs: Slices = Slices.CHANNELS,
) -> Ranges:
    """Run the full-precision model once over calibration images and note every slice's range.

    The images are in the model's own normalisation; no labels are needed. The model is untouched.
    Softmax maps are sliced as `softmax` says, linear layers' inputs as `inputs` says, and channels
    will pick groups as `assignment` says; `layers` has the same choices.

    Raises:
        InvalidArgumentError: there are no images.
        UnsupportedModelError: the model is not one whose layers can be listed.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> igq.observe(vit, images)["blocks.0.attn.softmax"].shape  # 3 heads x 17 queries
    torch.Size([4, 51, 2])
    """
    if len(images) == 0:
        raise InvalidArgumentError("calibration needs at least 1 image, but got 0.")
    listed = layers(model, softmax, assignment, inputs)
    observers = {la.name: Observer(la.slices) for la in listed if not la.slices.own_range}
    observed = with_slots(model, lambda layer: observers.get(layer.name, nn.Identity()))
    device = next(model.parameters()).device
    for batch in images.split(batch_size):
        observed(batch.to(device))
    return Ranges(listed, {name: seen.ranges().cpu() for name, seen in observers.items()})
