"""The interface of a family of vision transformers, and helpers that families share.

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
from igq.layer import Kind, Layer
from igq.modules import Attention, Linear

IMAGE_BITS = 8
"""Bits of the patch embedding's input (our choice, as RepQ-ViT, AdaLog and FIMA-Q)."""

Stage = Callable[[Tensor], Tensor]
"""A step of the forward pass; its output is the next one's input."""

Arguments = Mapping[str, Callable[[Any], Any]]
"""Argument of timm's -> function that reads it off a model, quantized or not."""

MLPS = (Mlp, GluMlp, SwiGLU)
"""The modules that may follow a block's attention; their linear layers are listed in order."""


class Family(ABC):
    """One way of building a vision transformer."""

    models: ClassVar[tuple[type[nn.Module], ...]]
    """timm's models that are built so; not their subclasses, which may differ."""
    arguments: ClassVar[Arguments]

    @abstractmethod
    def check(self, model: Any) -> None:
        """Refuse a model with a part that computes something else than its layers say.

        Raises:
            UnsupportedModelError: there is one; the message names it.
        """

    @abstractmethod
    def layers(self, model: Any) -> Iterator[Layer]:
        """Yield every activation that is quantized, in the order of the forward pass."""

    @abstractmethod
    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        """Yield the module path of each attention of timm's, and its replacement."""

    @abstractmethod
    def stages(self, model: Any) -> list[Stage]:
        """Return the forward pass in steps: embedding, each module of the body, norm and head."""


def expect(name: str, part: object, *types: type) -> None:
    """Refuse a part of another type, unless igq put it there.

    Raises:
        UnsupportedModelError: it has none of these types.
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
    """Return the names in a row.

    >>> either(["Beit", "Eva", "Swin"])
    'Beit, Eva or Swin'
    """
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def embedding(model: Any) -> Layer:
    """Return the layer of the patch embedding's convolution."""
    conv: Any = model.patch_embed.proj
    inputs = conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    patches, outputs = model.patch_embed.num_patches, conv.out_channels
    return Layer("patch_embed.proj", Kind.EMBEDDING, patches, inputs, outputs, bits=IMAGE_BITS)


def linear(model: nn.Module, name: str, tokens: int) -> Layer:
    """Return the layer of a linear module of the body."""
    module: Any = model.get_submodule(name)
    return Layer(name, Kind.LINEAR, tokens, module.in_features, module.out_features)


def head(model: nn.Module, name: str) -> Layer:
    """Return the layer of a linear module that classifies the one token that is left."""
    module: Any = model.get_submodule(name)
    return Layer(name, Kind.HEAD, 1, module.in_features, module.out_features)


def operands(
    name: str, heads: int, width: int, tokens: int, keys: int, kv_heads: int | None = None
) -> Iterator[Layer]:
    """Yield q, k, softmax map and v of an attention in which each token looks at `keys`."""
    kv_heads = kv_heads or heads
    rows, kv_rows = tokens * heads, tokens * kv_heads
    yield Layer(f"{name}.q", Kind.QUERY, rows, width, keys, heads=heads)
    yield Layer(f"{name}.k", Kind.KEY, kv_rows, width, 0, heads=kv_heads)
    yield Layer(f"{name}.softmax", Kind.SOFTMAX, rows, keys, width, heads=heads)
    yield Layer(f"{name}.v", Kind.VALUE, kv_rows, width, 0, heads=kv_heads)


def mlp(model: nn.Module, name: str, tokens: int) -> Iterator[Layer]:
    """Yield the linear layers of a block's MLP; a gate of its own is one of them."""
    for child, module in model.get_submodule(name).named_children():
        if isinstance(module, (nn.Linear, Linear)):
            yield linear(model, f"{name}.{child}", tokens)


def head_dim(attn: Any) -> int:
    """Return the channels of each head of an attention."""
    return attn.proj.in_features // attn.num_heads  # type: ignore[no-any-return]


def hidden_width(mlp: Any) -> int:
    """Return the outputs of an MLP's first linear layer, with the gate's where it is packed."""
    first = mlp.fc1_g if isinstance(mlp, SwiGLU) else mlp.fc1
    return first.out_features


def ratio(hidden: int, width: int) -> float:
    """Return the factor with which timm gets `hidden` from `width`, rounding down.

    >>> ratio(48, 12), int(11 * ratio(15, 11))
    (4.0, 15)
    """
    quotient = hidden / width
    return quotient if int(width * quotient) == hidden else math.nextafter(quotient, math.inf)


def is_there(module: nn.Module) -> bool:
    """Return whether an optional part of timm's is more than a placeholder."""
    return not isinstance(module, nn.Identity)
