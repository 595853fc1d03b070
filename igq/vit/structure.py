"""How a timm vision transformer is built: which layers it has, and its forward pass in steps."""

from dataclasses import replace

from torch import nn

from igq.errors import UnsupportedModelError
from igq.layers import ROWS, Assignment, Layer, Slices
from igq.vit.beit import Beit
from igq.vit.eva import Eva
from igq.vit.family import Family, Stage, either
from igq.vit.plain import Plain
from igq.vit.swin import Swin

FAMILIES: tuple[Family, ...] = (Plain(), Swin(), Beit(), Eva())
"""Each way of building a vision transformer that is supported."""


def layers(
    model: nn.Module,
    softmax: Slices = Slices.UNIT_ROWS,
    assignment: Assignment = Assignment.LEAST_ERROR,
    inputs: Slices = Slices.CHANNELS,
) -> tuple[Layer, ...]:
    """Every activation of the model that is quantized, in the order of the forward pass.

    Softmax maps are sliced as `softmax` says, inputs of the blocks' linear layers as `inputs`
    says, and their channels pick groups as `assignment` says; `Slices.ROWS`, `Slices.CHANNELS` and
    `Assignment.NEAREST` are the paper's way.

    Raises:
        UnsupportedModelError: the model is of no supported family, or a part of it is not.

    >>> import timm
    >>> vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    >>> [layer.name for layer in layers(vit) if layer.grouped]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['blocks.0.attn.qkv', 'blocks.0.attn.softmax', 'blocks.0.attn.proj', 'blocks.0.mlp.fc1',
     'blocks.0.mlp.fc2']
    """

    def chosen(layer: Layer) -> Layer:
        if layer.slices in ROWS:
            return replace(layer, slices=softmax)
        if layer.slices is Slices.CHANNELS:
            return replace(layer, slices=inputs, assignment=assignment)
        return layer

    return tuple(chosen(layer) for layer in supported(model).layers(model))


def stages(model: nn.Module) -> list[Stage]:
    """The forward pass in steps: embedding, each block, norm and head; also of a swapped copy.

    What a step gives is the next one's input, so that a model which differs from another only
    from block k on can start from what the other one computed. Swin's steps are its stages.
    """
    return family_of(model).stages(model)


def stage_of(layer: Layer) -> int:
    """The place in `stages` of the step that the layer is part of; -1 for the last."""
    first, _, rest = layer.name.partition(".")
    if first in ("blocks", "layers"):
        return 1 + int(rest.partition(".")[0])
    return 0 if first == "patch_embed" else -1


def supported(model: nn.Module) -> Family:
    """The model's family, if every part of the model is one whose layers can be listed.

    Raises:
        UnsupportedModelError: it is not; the message names the part.
    """
    family = family_of(model)
    family.check(model)
    listed = {layer.name for layer in family.layers(model)}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and name not in listed:
            raise UnsupportedModelError(
                "every linear and convolution layer must be one that can be quantized, "
                f"but {name} is not."
            )
    return family


def family_of(model: nn.Module) -> Family:
    """The family that models of this type belong to.

    Raises:
        UnsupportedModelError: there is none.
    """
    for family in FAMILIES:
        if type(model) in family.models:
            return family
    known = [model.__name__ for family in FAMILIES for model in family.models]
    raise UnsupportedModelError(
        f"the model must be a timm {either(known)}, but got a {type(model).__name__}."
    )
