"""The likely cause of weights that do not fit a model."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_OTHERS = (
    ("conv_proj.weight", "torchvision's VisionTransformer", "take timm's weights of it"),
    ("layer1.0.conv1.weight", "a ResNet", ""),
    (
        "features.0.0.weight",
        "torchvision's Swin or a convolutional network",
        "take timm's weights of it",
    ),
    ("layers.0.blocks.0.attn.qkv.weight", "a Swin transformer", ""),
    (
        "transformer.resblocks.0.attn.in_proj_weight",
        "CLIP",
        "take timm's weights of its image tower",
    ),
    ("blocks.0.attn.qkv.weight", "a vision transformer with one row of blocks", ""),
)
"""A tensor's name, the model that has it, and what to do."""


def likely_cause(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Return a sentence that says why the tensors do not fit, or nothing where it is not known.

    The sentence begins with a space.
    """
    expected = model.state_dict()
    for mark, kind, remedy in _OTHERS:
        if mark in tensors and mark not in expected:
            advice = f": {remedy}" if remedy else ""
            model_name = type(model).__name__
            return (
                f" Likely they are those of {kind}, and the model is timm's {model_name}{advice}."
            )
    for cause in (_classes, _size, _depth, _positions):
        if said := cause(expected, tensors):
            return f" {said}"
    return ""


def _classes(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    for head in ("head.weight", "head.fc.weight"):
        if head in expected and head not in tensors:
            return (
                "Likely they were pretrained without a classifier, which a search needs: fine-tune "
                "the model first."
            )
        if head in expected and len(expected[head]) != len(tensors[head]):
            return (
                f"Likely they are of {len(tensors[head])} classes: give --num-classes "
                f"{len(tensors[head])}."
            )
    return ""


def _size(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    name = "patch_embed.proj.weight"
    theirs, ours = tensors.get(name), expected.get(name)
    if theirs is None or ours is None or len(theirs) == len(ours):
        return ""
    return (
        f"Likely they are of a model of width {len(theirs)}, and this one has {len(ours)}: choose "
        "a space of the other size (tiny 192, small 384, base 768)."
    )


def _depth(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    theirs, ours = _blocks(tensors), _blocks(expected)
    if theirs == ours or not theirs:
        return ""
    return f"Likely they are of a model of {theirs} blocks, and this one has {ours}."


def _positions(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    theirs, ours = tensors.get("pos_embed"), expected.get("pos_embed")
    if theirs is None or ours is None or theirs.shape == ours.shape:
        return ""
    registers = tensors.get("reg_token")
    if registers is not None and "reg_token" not in expected:
        count = registers.shape[1]
        return f"Likely they are of a model with register tokens: give reg_tokens: {count}."
    return "Likely they are of a model with another img_size or patch_size: give theirs."


def _blocks(tensors: Mapping[str, Any]) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
