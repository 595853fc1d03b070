"""What can be quantized: plain data about one activation of a model.

Notation: N tokens, C channels, D outputs, H heads, K keys. A *layer* is a quantized
activation, named by its module path. Its *slices* are the parts that may each pick a group of
their own in each image.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

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
    TOKEN_GROUPS = "token groups"
    """The same input: each token's channels in groups side by side, each with its own range."""
    ROWS = "rows"
    """A softmax map, (images, heads, queries, keys): the range is taken over keys."""
    UNIT_ROWS = "unit rows"
    """Rows that keep their sum of 1: what quantization loses of it is spread over the keys."""
    KEY_GROUPS = "key groups"
    """The same rows: each row's keys in groups side by side, each with its own range; their sum is
    kept."""
    TOKENS = "tokens"
    """The classifier's input, (images, channels): each token has its own range in each image."""
    HEAD_TOKENS = "head tokens"
    """q or k, (images, heads, tokens, width): each token of a head has its own range."""
    HEAD_CHANNELS = "head channels"
    """v, (images, heads, tokens, width): each channel of a head has its own range."""
    HEADS = "heads"
    """q, k or v in artifacts of earlier versions: each head has its own range in each image."""
    WHOLE = "whole"
    """One slice: the range is taken over everything in the image, the group is always the same."""

    @property
    def side_by_side(self) -> bool:
        """Whether groups lie side by side in what a product sums over, each with its own range."""
        return self in (Slices.TOKEN_GROUPS, Slices.KEY_GROUPS)

    @property
    def keeps_sum(self) -> bool:
        """Whether what quantization loses of a row's sum of 1 is given back to it."""
        return self in (Slices.UNIT_ROWS, Slices.KEY_GROUPS)

    @property
    def own_range(self) -> bool:
        """Whether each slice is quantized with its own range: nothing is fitted."""
        return self in _OWN_RANGE

    def reduced(self, dimensions: int) -> tuple[int, ...]:
        """The axes a slice's range is reduced over, of a tensor with so many dimensions."""
        match self:
            case Slices.CHANNELS:
                return tuple(range(1, dimensions - 1))
            case Slices.ROWS | Slices.UNIT_ROWS | Slices.TOKENS | Slices.HEAD_TOKENS:
                return (dimensions - 1,)
            case Slices.TOKEN_GROUPS | Slices.KEY_GROUPS:
                raise NotImplementedError("the range of a part of an axis: igq.runs")
            case Slices.HEAD_CHANNELS:
                return (dimensions - 2,)
            case Slices.HEADS:
                return (dimensions - 2, dimensions - 1)
            case Slices.WHOLE:
                return tuple(range(1, dimensions))


class Assignment(StrEnum):
    """What makes a slice pick the group that it picks, in each image.

    >>> Assignment("nearest") is Assignment.NEAREST
    True
    """

    NEAREST = "nearest"
    """The bounds nearest to the slice's range, as in the paper (Eq. 4 and 5)."""
    LEAST_ERROR = "least_error"
    """The bounds with the least expected error of the slice's values (our choice).

    Bounds are fitted for it: they lie a margin outside the mean of their members.
    """


_OWN_RANGE = (
    Slices.TOKEN_GROUPS,
    Slices.KEY_GROUPS,
    Slices.TOKENS,
    Slices.HEAD_TOKENS,
    Slices.HEAD_CHANNELS,
    Slices.HEADS,
)
ROWS = (Slices.ROWS, Slices.UNIT_ROWS, Slices.KEY_GROUPS)
"""The ways of slicing a softmax map."""
INPUTS = (Slices.CHANNELS, Slices.TOKEN_GROUPS)
"""The ways of slicing the input of a linear layer in a block."""
CELLS = 24
"""What a token's channels are divided into: many numbers of groups divide it (our choice)."""
MOST_CELLS = 32
"""Where 24 does not divide the channels, the greatest number up to this that does."""
FEWEST_CELLS = 12
"""Where that would be fewer, about 24 cells, of which the last is shorter."""
MOST_ROTATED = 64
"""Channels that are rotated together, at most (our choice)."""


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
    assignment: Assignment = Assignment.NEAREST
    rotated: bool = False
    """Whether the product is computed in a rotated basis."""

    @property
    def grouped(self) -> bool:
        """Whether the number of groups of this layer is searched."""
        return self.slices in INPUTS or self.slices in ROWS

    @property
    def num_slices(self) -> int:
        """Slices in one image: what picks a group, or has a range of its own."""
        match self.slices:
            case Slices.CHANNELS:
                return self.channels
            case Slices.ROWS | Slices.UNIT_ROWS | Slices.TOKENS | Slices.HEAD_TOKENS:
                return self.tokens
            case Slices.TOKEN_GROUPS | Slices.KEY_GROUPS:
                return self.tokens * num_cells(self.channels)
            case Slices.HEAD_CHANNELS:
                return self.heads * self.channels
            case Slices.HEADS:
                return self.heads
            case Slices.WHOLE:
                return 1


def num_cells(length: int) -> int:
    """Cells of so many channels or keys, all as wide: the most groups that these can be in.

    >>> num_cells(768), num_cells(1024), num_cells(10)
    (24, 32, 10)
    >>> num_cells(197)  # 22 of 9, the last of them of 8
    22
    """
    if length % CELLS == 0:
        return CELLS
    exact = max(count for count in range(1, MOST_CELLS + 1) if length % count == 0)
    if exact >= min(FEWEST_CELLS, length):
        return exact
    width = -(-length // CELLS)
    return -(-length // width)


def num_runs(length: int, num_groups: int) -> int:
    """Groups that there really are where so many are wanted: runs of as many cells each.

    >>> num_runs(192, 8), num_runs(192, 10), num_runs(10, 16)
    (8, 8, 10)
    """
    cells = num_cells(length)
    return -(-cells // -(-cells // num_groups))


def rotation_width(channels: int) -> int:
    """Channels that are rotated together: the largest power of two that divides them, up to 64.

    >>> rotation_width(192), rotation_width(24), rotation_width(7)
    (64, 8, 1)
    """
    return min(channels & -channels, MOST_ROTATED)


def grouped(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers whose number of groups is searched, in order.

    >>> fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
    >>> head = Layer("head", Slices.WHOLE, tokens=1, channels=3, outputs=5, weighted=True)
    >>> [layer.name for layer in grouped([fc, head])]
    ['fc']
    """
    return tuple(layer for layer in layers if layer.grouped)


_PLACE = re.compile(r"(.*\d)\.(\D+\d*)")
"""A layer's name as its block, all up to the last index, and its place in it."""


def block_and_place(name: str) -> tuple[str, str]:
    """The block that a layer is in, and its place there; a layer in no block has none.

    >>> block_and_place("blocks.0.mlp.fc1"), block_and_place("layers.1.blocks.0.attn.qkv")
    (('blocks.0', 'mlp.fc1'), ('layers.1.blocks.0', 'attn.qkv'))
    >>> block_and_place("head")
    ('', 'head')
    """
    match = _PLACE.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


class Tie(StrEnum):
    """Which layers share their number of groups."""

    BLOCK = "block"
    """Those of a block."""
    KIND = "kind"
    """Those at the same place of every block, such as fc1, qkv or softmax."""


def tied(layers: Iterable[Layer], tie: Tie | None) -> dict[str, list[str]]:
    """The grouped layers that share a choice, by the name of what they share; None: each its own.

    >>> kind = {"slices": Slices.CHANNELS, "tokens": 1, "channels": 1, "outputs": 1}
    >>> names = ("blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1")
    >>> fcs = [Layer(name, **kind, weighted=True) for name in names]
    >>> tied(fcs, Tie.KIND)
    {'fc1': ['blocks.0.fc1', 'blocks.1.fc1'], 'fc2': ['blocks.0.fc2']}
    >>> list(tied(fcs, Tie.BLOCK)), list(tied(fcs, None)) == list(names)
    (['blocks.0', 'blocks.1'], True)
    """
    ties: dict[str, list[str]] = {}
    for layer in grouped(layers):
        block, place = block_and_place(layer.name)
        shared = {Tie.BLOCK: block or place, Tie.KIND: place, None: layer.name}[tie]
        ties.setdefault(shared, []).append(layer.name)
    return ties


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
