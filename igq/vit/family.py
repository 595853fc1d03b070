"""What igq must know of each way of building a vision transformer, and what they have in common.

A family says which of timm's models are its own and what their parts must be, lists their layers,
makes the attention that takes the place of timm's, and gives the forward pass in steps. It works
on a model of timm's as well as on a copy with slots.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from timm.layers import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

from igq.errors import UnsupportedModelError
from igq.layers import Layer, Slices
from igq.modules import Linear
from igq.rotation import RotatedLinear
from igq.vit.attention import Attention

IMAGE_BITS = 8
"""Bits of the patch embedding's input (our choice, as RepQ-ViT, AdaLog and FIMA-Q)."""

Stage = Callable[[Tensor], Tensor]
"""A step of the forward pass; what it gives is the next one's input."""

Arguments = Mapping[str, Callable[[Any], Any]]
"""How each argument that timm makes a model from is read off the model, quantized or not."""

MLPS = (Mlp, GluMlp, SwiGLU)
"""What may stand after a block's attention; their linear layers are listed as they are found."""


class Family(ABC):
    """One way of building a vision transformer."""

    models: ClassVar[tuple[type[nn.Module], ...]]
    """timm's models that are built so; not their subclasses, which may differ."""
    arguments: ClassVar[Arguments]

    @abstractmethod
    def check(self, model: Any) -> None:
        """Refuse a model with a part that would compute something else than its layers say.

        Raises:
            UnsupportedModelError: there is one; the message names it.
        """

    @abstractmethod
    def layers(self, model: Any) -> Iterator[Layer]:
        """Every activation that is quantized, in the order of the forward pass."""

    @abstractmethod
    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        """Module path of each attention of timm's, and what takes its place."""

    @abstractmethod
    def stages(self, model: Any) -> list[Stage]:
        """The forward pass in steps: embedding, each module of the body, norm and head."""


def expect(name: str, part: object, *types: type) -> None:
    """Refuse a part that has none of these types, and is not what igq put in its place either.

    Raises:
        UnsupportedModelError: it has not.
    """
    if type(part) in types or isinstance(part, (Linear, Attention)):
        return
    rule = "None" if types == (type(None),) else f"a {either([kind.__name__ for kind in types])}"
    raise UnsupportedModelError(f"{name} must be {rule}, but is a {type(part).__name__}.")


def expect_pooling(model: Any) -> None:
    """Refuse a model whose head would see many tokens.

    Raises:
        UnsupportedModelError: it does not pool.
    """
    if not model.global_pool:
        raise UnsupportedModelError(
            f"`global_pool` must leave one token for the head, but is {model.global_pool!r}."
        )


def either(names: Sequence[str]) -> str:
    """The names in a row.

    >>> either(["Beit", "Eva", "Swin"])
    'Beit, Eva or Swin'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def embedding(model: Any) -> Layer:
    """The patch embedding's convolution."""
    conv: Any = model.patch_embed.proj
    inputs = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    patches, outputs = model.patch_embed.num_patches, conv.out_channels
    return Layer(
        "patch_embed.proj", Slices.WHOLE, patches, inputs, outputs, weighted=True, bits=IMAGE_BITS
    )


def linear(model: nn.Module, name: str, tokens: int) -> Layer:
    """A linear layer of the body."""
    module: Any = model.get_submodule(name)
    inputs, outputs = module.in_features, module.out_features
    rotated = isinstance(module, RotatedLinear) or getattr(module, "rotation", None) is not None
    return Layer(name, Slices.CHANNELS, tokens, inputs, outputs, weighted=True, rotated=rotated)


def head(model: nn.Module, name: str) -> Layer:
    """A linear layer that classifies the one token that is left."""
    module: Any = model.get_submodule(name)
    return Layer(name, Slices.TOKENS, 1, module.in_features, module.out_features, weighted=True)


def operands(
    name: str, heads: int, width: int, tokens: int, keys: int, kv_heads: int | None = None
) -> Iterator[Layer]:
    """q, k, softmax map and v of an attention in which each of the tokens looks at `keys`."""
    kv_heads = kv_heads or heads
    rows, kv_rows = tokens * heads, tokens * kv_heads
    tokens_own, channels_own = Slices.HEAD_TOKENS, Slices.HEAD_CHANNELS
    yield Layer(f"{name}.q", tokens_own, rows, width, keys, weighted=False, heads=heads)
    yield Layer(f"{name}.k", tokens_own, kv_rows, width, 0, weighted=False, heads=kv_heads)
    yield Layer(f"{name}.softmax", Slices.UNIT_ROWS, rows, keys, width, weighted=False, heads=heads)
    yield Layer(f"{name}.v", channels_own, kv_rows, width, 0, weighted=False, heads=kv_heads)


def mlp(model: nn.Module, name: str, tokens: int) -> Iterator[Layer]:
    """The linear layers of a block's MLP; a gate of its own is one of them."""
    for child, module in model.get_submodule(name).named_children():
        if isinstance(module, (nn.Linear, Linear)):
            yield linear(model, f"{name}.{child}", tokens)


def head_dim(attn: Any) -> int:
    """Channels of each head of an attention."""
    return attn.proj.in_features // attn.num_heads  # type: ignore[no-any-return]


def hidden_width(mlp: Any) -> int:
    """Outputs of an MLP's first linear layer: those of value and gate, where they are packed."""
    first = mlp.fc1_g if isinstance(mlp, SwiGLU) else mlp.fc1
    return first.out_features


def ratio(hidden: int, width: int) -> float:
    """What timm multiplies `width` with and rounds down, to get `hidden`.

    >>> ratio(48, 12), int(11 * ratio(15, 11))
    (4.0, 15)
    """
    quotient = hidden / width
    return quotient if int(width * quotient) == hidden else math.nextafter(quotient, math.inf)


def is_there(module: nn.Module) -> bool:
    """Whether an optional part of timm's is more than a placeholder."""
    return not isinstance(module, nn.Identity)
