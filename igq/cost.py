"""Bit operations (BOPs) of one image, with what grouping adds (Table 1).

A product of N x C activations of b_a bits with C x D weights of b_w bits costs N C D b_w b_a.
Grouping adds 32-bit operations: the range of each slice, its distance to each group's bounds,
and, for channels, the floating-point sum of the groups' partial products:

    channels  32 [2 N C + 4 C G + (G - 1) N D]
    rows      32 [N K + 4 N G]          one row belongs to one group: nothing is summed

Channels that pick by expected error take 16 operations for each group, not 4: for each of both
bounds a difference, its positive part, a product with 1 / width, two squares, the lesser of one and
1 and a product, and two sums.

q, k and v have ranges of their own in every image, whatever the allocation: each token of q and
k, each channel of v. That is 32 [2 N C] each, and for the scores, which have one scale for each
query and key, 32 [N K] multiplications more. The scales of v pass through its product. The
classifier's input costs as much as q, with N = 1. Tokens whose channels are in G groups, each with
its own range, cost 32 [2 N C + G N D]: as many sums as groups of channels, and one multiplication
of each output more. Keys of a softmax row in groups do so with a maximum alone: 32 [N K + G N D].
Rotating a layer's input costs 32 [N C log2 B], with B channels rotated
together. Rows of a softmax map that keep their sum need that sum, the mean of v, and its product
with what is missing: 32 [N K + 3 N D].

One group of channels or rows is the plain quantizer, whose bounds are fixed: nothing is added.
BOPs measure arithmetic, not latency.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log2
from typing import TypeVar

from igq.affine import check_bits
from igq.errors import InvalidArgumentError
from igq.layers import (
    Assignment,
    Layer,
    Slices,
    check_num_groups,
    num_runs,
    rotation_width,
)
from igq.settings import Choice
from igq.size import SizeTable
from igq.tables import CostTable

FLOAT_BITS = 32
Number = TypeVar("Number", int, float)


def product_bops(layer: Layer, weight_bits: int, activation_bits: int) -> int:
    """BOPs of the layer's matrix product on one image, without grouping."""
    own = layer.bits or activation_bits
    other = weight_bits if layer.weighted else activation_bits
    return layer.tokens * layer.channels * layer.outputs * own * other


def grouping_bops(layer: Layer, num_groups: int) -> int:
    """BOPs that `num_groups` groups add on one image (Table 1), and a rotation with them.

    >>> fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
    >>> grouping_bops(fc, 4) == 32 * (2 * 2 * 3 + 4 * 3 * 4 + 3 * 2 * 5)
    True
    """
    n, c, d, g = layer.tokens, layer.channels, layer.outputs, num_groups
    rotation = n * c * int(log2(rotation_width(c))) if layer.rotated else 0
    match layer.slices:
        case Slices.TOKEN_GROUPS:
            return FLOAT_BITS * (rotation + 2 * n * c + num_runs(c, g) * n * d)
        case Slices.KEY_GROUPS:
            return FLOAT_BITS * (n * c + num_runs(c, g) * n * d)
        case _ if g == 1:
            return FLOAT_BITS * rotation
        case Slices.CHANNELS:
            picking = 4 if layer.assignment is Assignment.NEAREST else 16
            return FLOAT_BITS * (rotation + 2 * n * c + picking * c * g + (g - 1) * n * d)
        case Slices.ROWS | Slices.UNIT_ROWS:
            return FLOAT_BITS * (n * c + 4 * n * g)
        case _:
            raise InvalidArgumentError(f"{layer.name} is not grouped, but got {g} groups for it.")


def constant_bops(layer: Layer) -> int:
    """BOPs that a layer adds to its product whatever its number of groups."""
    n, c, d = layer.tokens, layer.channels, layer.outputs  # k and v have no outputs
    if layer.slices.own_range and not layer.grouped:
        return FLOAT_BITS * (2 * n * c + n * d)
    return FLOAT_BITS * (n * c + 3 * n * d) if layer.slices.keeps_sum else 0


@dataclass(frozen=True)
class BopsTable(CostTable):
    """BOPs of every layer for every number of groups: the cost of any allocation is a sum.

    `layers` is layer name -> num_groups -> BOPs of one image. Made by `bops`.

    >>> table = BopsTable({"fc1": {1: 8, 2: 9}}, fixed=2, base={"fc1": 8})
    >>> table.of({"fc1": 2}), table.minimum, table.overhead(11)
    (11, 10, 0.10000000000000009)
    """

    base: Mapping[str, int]
    """BOPs of each layer with the plain quantizer."""
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What `tied` made one: its name -> the layers that share a choice. Every other is itself."""
    sizes: SizeTable | None = None
    """The model's size, where choices change it; the cheapest choice is one of the smallest."""

    def __post_init__(self) -> None:
        for name, sizes in ({} if self.sizes is None else self.sizes.layers).items():
            if sizes[(cheapest := self.choices(name)[0])] > min(sizes.values()):
                raise InvalidArgumentError(
                    "`sizes` must be least for a layer's cheapest choice, "
                    f"but got {sizes[cheapest]} for {name} with {cheapest}."
                )

    def limits(self, budget: int) -> tuple[tuple[CostTable, int], ...]:
        """What an allocation has to keep: the BOPs and their budget, the sizes and their most.

        >>> table = BopsTable({"fc1": {1: 8, 2: 9}}, fixed=2, base={})
        >>> [most for _, most in table.limits(11)]
        [11]
        """
        if self.sizes is None or self.sizes.most is None:
            return ((self, budget),)
        return (self, budget), (self.sizes, self.sizes.most)

    def fits(self, allocation: Mapping[str, Choice], budget: int) -> bool:
        """Whether `allocation` keeps the budget, and the size where there is a limit to it."""
        return all(table.of(allocation) <= most for table, most in self.limits(budget))

    def size_of(self, allocation: Mapping[str, Choice]) -> int | None:
        """Bytes of the model under `allocation`; None where choices do not change them."""
        return None if self.sizes is None else self.sizes.of(allocation)

    def tied(self, ties: Mapping[str, Sequence[str]]) -> "BopsTable":
        """The table in which the layers of each tie are one entry, and share their choice.

        >>> table = BopsTable({"fc1": {1: 8, 2: 9}, "fc2": {1: 5, 2: 7}}, fixed=2, base={})
        >>> table.tied({"mlp": ["fc1", "fc2"]}).layers
        {'mlp': {1: 13, 2: 16}}
        """
        return replace(
            self,
            layers=tie(self.layers, ties),
            sizes=self.sizes and replace(self.sizes, layers=tie(self.sizes.layers, ties)),
            members={name: tuple(layers) for name, layers in ties.items()},
        )

    def expand(self, allocation: Mapping[str, Choice]) -> dict[str, Choice]:
        """An allocation of the table's entries as one of the model's layers.

        >>> table = BopsTable({"fc1": {1: 8, 2: 9}, "fc2": {1: 5, 2: 7}}, fixed=2, base={})
        >>> table.tied({"mlp": ["fc1", "fc2"]}).expand({"mlp": 2})
        {'fc1': 2, 'fc2': 2}
        """
        return {
            layer: choice
            for name, choice in allocation.items()
            for layer in self.members.get(name, (name,))
        }

    @property
    def ungrouped(self) -> int:
        """BOPs of the model with plain quantizers: what overhead is measured against."""
        return self.fixed + sum(self.base.values())

    def overhead(self, bops: int) -> float:
        """The share of `ungrouped` that `bops` lies above it."""
        return bops / self.ungrouped - 1


def tie(
    table: Mapping[str, Mapping[Choice, Number]], ties: Mapping[str, Sequence[str]]
) -> dict[str, dict[Choice, Number]]:
    """Sums over the layers of each tie, choice by choice, of a table of costs or harms.

    >>> tie({"fc1": {2: 0.5}, "fc2": {2: 0.25}}, {"mlp": ["fc1", "fc2"]})
    {'mlp': {2: 0.75}}
    """
    return {
        name: {choice: sum(table[layer][choice] for layer in layers) for choice in table[layers[0]]}
        for name, layers in ties.items()
    }


def bops(
    layers: Iterable[Layer], num_groups: Sequence[int], weight_bits: int, activation_bits: int
) -> BopsTable:
    """The cost of every layer for every number of groups, in BOPs of one image.

    Raises:
        InvalidArgumentError: bits out of range, or no number of groups, or one below 1.

    >>> fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
    >>> bops([fc], (1, 2), weight_bits=4, activation_bits=4).of({"fc": 1})
    480
    """
    check_bits(weight_bits, "weight_bits")
    check_bits(activation_bits, "activation_bits")
    check_num_groups(num_groups)
    layers = tuple(layers)
    base = {
        layer: product_bops(layer, weight_bits, activation_bits) + constant_bops(layer)
        for layer in layers
    }
    return BopsTable(
        layers={
            layer.name: {g: base[layer] + grouping_bops(layer, g) for g in num_groups}
            for layer in layers
            if layer.grouped
        },
        fixed=sum(cost for layer, cost in base.items() if not layer.grouped),
        base={layer.name: cost for layer, cost in base.items() if layer.grouped},
    )
