"""The layers of a model: plain data about its quantized activations. Nothing here needs torch.

Notation: N tokens, C channels, D outputs, H heads, K keys. A *layer* is a quantized activation,
named by its module path, together with the matrix product that it enters.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from igq.errors import InvalidArgumentError


class Kind(StrEnum):
    """The part that a layer's activation plays in a model.

    >>> Kind("softmax") is Kind.SOFTMAX
    True
    """

    EMBEDDING = "embedding"
    """The input of the patch embedding."""
    LINEAR = "linear"
    """The input of a linear layer of a block: (images, ..., channels)."""
    QUERY = "query"
    """q: (images, heads, tokens, width)."""
    KEY = "key"
    """k: (images, heads, tokens, width)."""
    SOFTMAX = "softmax"
    """A softmax map: (images, heads, queries, keys)."""
    VALUE = "value"
    """v: (images, heads, tokens, width)."""
    HEAD = "head"
    """The input of the classifier: (images, channels)."""


_WEIGHTED = (Kind.EMBEDDING, Kind.LINEAR, Kind.HEAD)
_GROUPED = (Kind.LINEAR, Kind.SOFTMAX)


@dataclass(frozen=True)
class Layer:
    """A quantized activation and the matrix product that it enters.

    The product takes `tokens x channels` values to `tokens x outputs` ones. For a softmax map
    `tokens` counts the queries of all heads, `channels` the keys and `outputs` the width of a
    head. `outputs` is 0 where the product is counted at its other operand.

    >>> Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5).grouped
    True
    """

    name: str
    kind: Kind
    tokens: int
    channels: int
    outputs: int
    heads: int = 1
    """Heads that `tokens` counts together."""
    bits: int | None = None
    """Bits that the method fixes for this layer; None: the caller's `activation_bits`."""

    @property
    def weighted(self) -> bool:
        """Whether the other operand of the product is a weight."""
        return self.kind in _WEIGHTED

    @property
    def grouped(self) -> bool:
        """Whether the number of groups of this layer is searched."""
        return self.kind in _GROUPED


def grouped(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return the layers whose number of groups is searched, in order.

    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> head = Layer("head", Kind.HEAD, tokens=1, channels=3, outputs=5)
    >>> [layer.name for layer in grouped([fc, head])]
    ['fc']
    """
    return tuple(layer for layer in layers if layer.grouped)


_PLACE = re.compile(r"(.*\d)\.(\D+\d*)")
"""A layer's name as its block, all up to the last index, and its place in the block."""


def block_and_place(name: str) -> tuple[str, str]:
    """Return the block that a layer is in, and its place there; `""` for a layer in no block.

    >>> block_and_place("blocks.0.mlp.fc1"), block_and_place("layers.1.blocks.0.attn.qkv")
    (('blocks.0', 'mlp.fc1'), ('layers.1.blocks.0', 'attn.qkv'))
    >>> block_and_place("head")
    ('', 'head')
    """
    match = _PLACE.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


def check_num_groups(num_groups: Sequence[int]) -> None:
    """Refuse numbers of groups that no layer could have.

    Raises:
        InvalidArgumentError: none given, or one below 1.
    """
    if not num_groups or min(num_groups) < 1:
        raise InvalidArgumentError(
            f"`num_groups` must be one or more whole numbers from 1, but got {tuple(num_groups)}."
        )
