"""How a timm vision transformer is built: which layers it has, and its forward pass in steps."""

from collections.abc import Callable, Iterator
from typing import Any

from timm.layers import Attention as TimmAttention
from timm.layers import Mlp, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from igq.errors import UnsupportedModelError
from igq.layers import Layer, Slices
from igq.modules import Linear
from igq.vit.attention import Attention

IMAGE_BITS = 8
"""Bits of the patch embedding's input (our choice, as RepQ-ViT, AdaLog and FIMA-Q)."""


def layers(model: nn.Module) -> tuple[Layer, ...]:
    """Every activation of the model that is quantized, in the order of the forward pass.

    Raises:
        UnsupportedModelError: the model is not a plain timm ViT or DeiT.

    >>> import timm
    >>> vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    >>> [layer.name for layer in layers(vit) if layer.grouped]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['blocks.0.attn.qkv', 'blocks.0.attn.softmax', 'blocks.0.attn.proj', 'blocks.0.mlp.fc1',
     'blocks.0.mlp.fc2']
    """
    return tuple(_list_layers(supported(model)))


def _list_layers(model: VisionTransformer) -> Iterator[Layer]:
    patches = model.patch_embed.num_patches
    tokens = patches + model.num_prefix_tokens
    conv: Any = model.patch_embed.proj
    inputs = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    outputs = conv.out_channels
    yield Layer(
        "patch_embed.proj", Slices.WHOLE, patches, inputs, outputs, weighted=True, bits=IMAGE_BITS
    )

    def linear(name: str) -> Layer:
        module: Any = model.get_submodule(name)
        return Layer(
            name, Slices.CHANNELS, tokens, module.in_features, module.out_features, weighted=True
        )

    block: Any
    for i, block in enumerate(model.blocks):
        attn = f"blocks.{i}.attn"
        width, heads = block.attn.head_dim, block.attn.num_heads
        rows = tokens * heads
        yield linear(f"{attn}.qkv")
        yield Layer(f"{attn}.q", Slices.HEADS, rows, width, tokens, weighted=False, heads=heads)
        yield Layer(f"{attn}.k", Slices.HEADS, rows, width, 0, weighted=False, heads=heads)
        yield Layer(
            f"{attn}.softmax", Slices.ROWS, rows, tokens, width, weighted=False, heads=heads
        )
        yield Layer(f"{attn}.v", Slices.HEADS, rows, width, 0, weighted=False, heads=heads)
        yield linear(f"{attn}.proj")
        yield linear(f"blocks.{i}.mlp.fc1")
        yield linear(f"blocks.{i}.mlp.fc2")
    head: Any = model.head
    yield Layer("head", Slices.WHOLE, 1, head.in_features, head.out_features, weighted=True)


def stages(model: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """The forward pass in steps: embedding, each block, norm and head; also of a swapped copy.

    What a step gives is the next one's input, so that a model which differs from another only
    from block k on can start from what the other one computed.
    """

    def embed(x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))  # type: ignore

    def predict(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x))  # type: ignore

    return [embed, *model.blocks, predict]  # type: ignore[misc]


def stage_of(layer: Layer) -> int:
    """The place in `stages` of the step that the layer is part of; -1 for the last."""
    first, _, rest = layer.name.partition(".")
    if first == "blocks":
        return 1 + int(rest.partition(".")[0])
    return 0 if first == "patch_embed" else -1


def supported(model: nn.Module) -> VisionTransformer:
    """The model, if every part of it is one whose layers can be listed.

    Raises:
        UnsupportedModelError: it is not; the message names the part.
    """
    if type(model) is not VisionTransformer:
        raise UnsupportedModelError(
            f"the model must be a timm VisionTransformer (ViT, DeiT), but got a "
            f"{type(model).__name__}."
        )
    for name, part, expected in _parts(model):
        if type(part) is not expected:
            raise UnsupportedModelError(
                f"{name} must be a {expected.__name__}, but is a {type(part).__name__}."
            )
    return model


def _parts(model: VisionTransformer) -> Iterator[tuple[str, Any, type]]:
    yield "patch_embed", model.patch_embed, PatchEmbed
    head: Any = model.head
    if type(head) is not Linear:  # as below: a quantized model is listed as well
        yield "head", head, nn.Linear
    yield "attn_pool", model.attn_pool, type(None)
    block: Any
    for i, block in enumerate(model.blocks):
        yield f"blocks.{i}", block, Block
        attn = block.attn
        if type(attn) is not Attention:
            yield f"blocks.{i}.attn", attn, TimmAttention
            yield f"blocks.{i}.attn.norm", attn.norm, nn.Identity
            yield f"blocks.{i}.attn.gate", attn.gate, type(None)
        yield f"blocks.{i}.mlp", block.mlp, Mlp
        yield f"blocks.{i}.mlp.norm", block.mlp.norm, nn.Identity
