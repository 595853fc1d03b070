"""The structure of a timm vision transformer: its layers, and its forward pass in steps."""

from collections.abc import Iterator, Mapping

from torch import nn

from igq.errors import UnsupportedModelError
from igq.layer import Layer
from igq.vit.families import FAMILIES, Family, Stage, either


def layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return every activation of the model that is quantized, in the order of the forward pass.

    Raises:
        UnsupportedModelError: the model is of no supported family, or a part of it is not.

    >>> import timm
    >>> vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    >>> [layer.name for layer in layers(vit) if layer.grouped]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['blocks.0.attn.qkv', 'blocks.0.attn.softmax', 'blocks.0.attn.proj', 'blocks.0.mlp.fc1',
     'blocks.0.mlp.fc2']
    """
    return tuple(supported(model).layers(model))


def stages(model: nn.Module) -> list[Stage]:
    """Return the forward pass in steps: embedding, each block, norm and head; also of a copy.

    The output of a step is the next one's input, so that a model which differs from another only
    from block k on can start from the activation that the other one computed. Swin's steps are its
    stages.
    """
    return family_of(model).stages(model)


def stage_of(layer: Layer) -> int:
    """Return the place in `stages` of the step that the layer is part of; -1 for the last."""
    first, _, rest = layer.name.partition(".")
    if first in ("blocks", "layers"):
        return 1 + int(rest.partition(".")[0])
    return 0 if first == "patch_embed" else -1


def supported(model: nn.Module) -> Family:
    """Return the model's family if every layer of the model can be listed.

    Raises:
        UnsupportedModelError: a part is not supported; the message names it.
    """
    family = family_of(model)
    if not getattr(model, "num_classes", 1):
        noted = getattr(model, "pretrained_cfg", None) or {}
        raise UnsupportedModelError(
            f"a model must be a classifier, but {noted.get('architecture') or 'this one'} has no "
            "classes: give it some with the argument `num_classes`, or take a version of it that "
            "was trained on them."
        )
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
    """Return the family that models of this type belong to.

    Raises:
        UnsupportedModelError: there is no such family.
    """
    for family in FAMILIES:
        if type(model) in family.models:
            return family
    raise UnsupportedModelError(_refusal(model))


def _refusal(model: nn.Module) -> str:
    """Return the rule, the value and the nearest way to a model that is supported."""
    name, module = type(model).__name__, type(model).__module__
    known = [model.__name__ for family in FAMILIES for model in family.models]
    article = "an" if name[:1] in "AEIOU" else "a"
    rule = f"the model must be a timm {either(known)}, but got {article}"
    wrapped = [path for path in ("module", "_orig_mod") if hasattr(model, path)]
    wrapped += [path for path, part in _parts(model) if type(part).__name__ in known]
    ours = next((base for base in type(model).__mro__[1:] if base.__name__ in known), None)
    if wrapped:
        return f"{rule} {name} around one; give model.{wrapped[0]}."
    if ours is not None:
        return (
            f"{rule} {name}, a subclass of {ours.__name__} that may compute otherwise; load its "
            "weights into a model of timm.create_model."
        )
    if module.startswith("transformers."):
        return (
            f"{rule} {name} of Hugging Face; igq.create(NAME, weights=FOLDER) reads the weights "
            "of a ViT, DeiT or DINOv2 that save_pretrained wrote."
        )
    if module.startswith("torchvision."):
        return (
            f"{rule} {name} of torchvision; make the model of the same name with "
            "timm.create_model, and fine-tune it or take its pretrained weights."
        )
    if isinstance(model, str | Mapping):
        return f"{rule} {name}; igq.create(NAME, weights=FILE) makes a model."
    return f"{rule} {name}."


def _parts(model: object) -> Iterator[tuple[str, nn.Module]]:
    return model.named_children() if isinstance(model, nn.Module) else iter(())
