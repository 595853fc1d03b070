"""What can be quantized: plain data about one activation of a model.

Notation: N tokens, C channels, D outputs, H heads, K keys. A *layer* is a quantized
activation, named by its module path. Its *slices* are the parts that may each pick a group of
their own in each image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from igq.errors import InvalidArgumentError


class Slices(Enum):
    """Along what a layer is sliced, and so what a slice's range is reduced over.

    >>> Slices.ROWS.reduced(4)
    (3,)
    """

    CHANNELS = "channels"
    """An input of a linear layer, (images, ..., channels): the range is taken over tokens."""
    ROWS = "rows"
    """A softmax map, (images, heads, queries, keys): the range is taken over keys."""
    HEAD_TOKENS = "head tokens"
    """q or k, (images, heads, tokens, width): each token of a head has its own range."""
    HEAD_CHANNELS = "head channels"
    """v, (images, heads, tokens, width): each channel of a head has its own range."""
    HEADS = "heads"
    """q, k or v in artifacts of earlier versions: each head has its own range in each image."""
    WHOLE = "whole"
    """One slice: the range is taken over everything in the image, the group is always the same."""

    @property
    def own_range(self) -> bool:
        """Whether each slice is quantized with its own range: nothing is fitted."""
        return self in (Slices.HEAD_TOKENS, Slices.HEAD_CHANNELS, Slices.HEADS)

    def reduced(self, dimensions: int) -> tuple[int, ...]:
        """The axes a slice's range is reduced over, of a tensor with so many dimensions."""
        match self:
            case Slices.CHANNELS:
                return tuple(range(1, dimensions - 1))
            case Slices.ROWS | Slices.HEAD_TOKENS:
                return (dimensions - 1,)
            case Slices.HEAD_CHANNELS:
                return (dimensions - 2,)
            case Slices.HEADS:
                return (dimensions - 2, dimensions - 1)
            case Slices.WHOLE:
                return tuple(range(1, dimensions))


@dataclass(frozen=True)
class Layer:
    """A quantized activation and the matrix product that it enters.

    The product takes `tokens x channels` values to `tokens x outputs` ones. For a softmax map
    `tokens` counts the queries of all heads, `channels` the keys and `outputs` the width of a
    head. `outputs` is 0 where the product is counted at its other operand.

    >>> Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True).num_slices
    3
    """

    name: str
    slices: Slices
    tokens: int
    channels: int
    outputs: int
    weighted: bool
    """The other operand of the product is a weight, not an activation."""
    heads: int = 1
    """Heads that `tokens` counts together."""
    bits: int | None = None
    """Bits that the method fixes for this layer; None: the caller's `activation_bits`."""

    @property
    def grouped(self) -> bool:
        """Whether the number of groups of this layer is searched."""
        return self.slices in (Slices.CHANNELS, Slices.ROWS)

    @property
    def num_slices(self) -> int:
        """Slices in one image: the most groups that can differ."""
        match self.slices:
            case Slices.CHANNELS:
                return self.channels
            case Slices.ROWS | Slices.HEAD_TOKENS:
                return self.tokens
            case Slices.HEAD_CHANNELS:
                return self.heads * self.channels
            case Slices.HEADS:
                return self.heads
            case Slices.WHOLE:
                return 1


def grouped(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers whose number of groups is searched, in order.

    >>> fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
    >>> head = Layer("head", Slices.WHOLE, tokens=1, channels=3, outputs=5, weighted=True)
    >>> [layer.name for layer in grouped([fc, head])]
    ['fc']
    """
    return tuple(layer for layer in layers if layer.grouped)


def slice_ranges(x: Float[Tensor, "images ..."], slices: Slices) -> Float[Tensor, "images ... 2"]:
    """(min, max) of each slice in each image; reduced axes are kept with length 1 (Eq. 4)."""
    axes = slices.reduced(x.ndim)
    if not axes:  # torch would reduce over everything
        return torch.stack((x, x), dim=-1)
    return torch.stack((x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)), dim=-1)


def check_num_groups(num_groups: Sequence[int]) -> None:
    """Refuse numbers of groups that no layer could have.

    Raises:
        InvalidArgumentError: none given, or one below 1.
    """
    if not num_groups or min(num_groups) < 1:
        raise InvalidArgumentError(
            f"`num_groups` must be one or more whole numbers from 1, but got {tuple(num_groups)}."
        )
