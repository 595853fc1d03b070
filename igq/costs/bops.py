"""Bit operations (BOPs) of one image, with the part that grouping adds (Table 1).

A product of N x C activations of b_a bits with C x D weights of b_w bits costs N C D b_w b_a.
Grouping adds 32-bit operations: the range of each slice, its distance to each group's bounds, and
the floating-point sum of the groups' partial products; each kind of grouping knows its own.
Rotating a layer's input costs 32 [N C log2 B], with B channels rotated together.

q, k and v have ranges of their own in every image, whatever the allocation: each token of q and
k, each channel of v. That is 32 [2 N C] each, and for the scores, which have one scale for each
query and key, 32 [N K] multiplications more. The scales of v pass through its product. The
classifier's input costs as much as q, with N = 1. Rows of a softmax map that keep their sum need
that sum, the mean of v, and its product with the missing part: 32 [N K + 3 N D].

One group of channels or rows is the plain quantizer, whose bounds are fixed: it adds nothing.
BOPs measure arithmetic, not latency.
"""

from collections.abc import Sequence
from functools import partial
from math import log2
from typing import Protocol, runtime_checkable

from igq.arithmetic.affine import check_bits
from igq.arithmetic.rotation import rotation_width
from igq.costs.table import CostTable, Unit
from igq.costs.ties import Tie, tie_layers
from igq.grouping import grouping_of
from igq.grouping.base import FLOAT_BITS
from igq.layer import Kind, Layer, check_num_groups
from igq.scheme import Scheme
from igq.settings import Options, Setting


@runtime_checkable
class Calibrated(Protocol):
    """Candidates, as far as their cost depends on them."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def num_groups(self) -> tuple[int, ...]: ...
    @property
    def bits(self) -> int: ...


def bops(candidates: Calibrated, weight_bits: int) -> CostTable:
    """Return the BOPs of every layer for every number of groups of its candidates.

    Raises:
        InvalidArgumentError: `weight_bits` out of range.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> candidates = igq.fit(igq.observe(vit, torch.rand(4, 1, 8, 8)), num_groups=(2, 4), bits=4)
    >>> igq.bops(candidates, weight_bits=4).limit(uniform=4).fits(igq.uniform(candidates.layers, 2))
    True
    """
    bits, groups = candidates.bits, candidates.num_groups
    options = Options((weight_bits,), (bits,), groups)
    return bops_table(candidates.layers, candidates.scheme, options)


def bops_table(
    layers: Sequence[Layer],
    scheme: Scheme,
    options: Options,
    base_bits: tuple[int, int] | None = None,
    tie: Tie | None = None,
) -> CostTable:
    """Return the BOPs of every setting of every layer, or of the layers of each tie.

    `base_bits` (weights, activations) are those of layers that are not chosen for, and of the
    plain model; by default the first ones of `options`.

    Raises:
        InvalidArgumentError: bits out of range, or no number of groups, or one below 1.

    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> options = Options((4,), (4,), (1, 2))
    >>> bops_table([fc], Scheme.PAPER, options).of({"fc": Setting(num_groups=1)})
    480
    """
    base = base_bits or (options.weight_bits[0], options.activation_bits[0])
    for bits in (base[0], *options.weight_bits):
        check_bits(bits, "weight_bits")
    for bits in (base[1], *options.activation_bits):
        check_bits(bits, "activation_bits")
    check_num_groups(options.num_groups)
    plain = {layer.name: plain_bops(layer, scheme, base) for layer in layers}
    ties = tie_layers(layers, options, tie)
    tied = {name for members in ties.values() for name in members}
    return CostTable(
        Unit.BOPS,
        ties.entries(layers, options, partial(setting_bops, scheme=scheme, base=base)),
        fixed=sum(cost for name, cost in plain.items() if name not in tied),
        plain=sum(plain.values()),
    )


def setting_bops(layer: Layer, setting: Setting, scheme: Scheme, base: tuple[int, int]) -> int:
    """Return the BOPs of a layer with a setting; parts that it leaves open are the base's."""
    bits = (setting.weight_bits or base[0], setting.activation_bits or base[1])
    grouping = grouping_bops(layer, scheme, setting.num_groups or 1) if layer.grouped else 0
    return plain_bops(layer, scheme, bits) + grouping


def plain_bops(layer: Layer, scheme: Scheme, bits: tuple[int, int]) -> int:
    """Return the BOPs of a layer's product on one image, and what no number of groups changes."""
    product = product_bops(layer, *bits)
    return product + grouping_of(layer, scheme).constant_bops(layer)


def product_bops(layer: Layer, weight_bits: int, activation_bits: int) -> int:
    """Return the BOPs of the layer's matrix product on one image, without grouping."""
    own = layer.bits or activation_bits
    other = weight_bits if layer.weighted else activation_bits
    return layer.tokens * layer.channels * layer.outputs * own * other


def grouping_bops(layer: Layer, scheme: Scheme, num_groups: int) -> int:
    """Return the BOPs that `num_groups` groups add on one image (Table 1), with the rotation.

    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> grouping_bops(fc, Scheme.PAPER, 4) == 32 * (2 * 2 * 3 + 4 * 3 * 4 + 3 * 2 * 5)
    True
    """
    groups = grouping_of(layer, scheme).group_bops(layer, num_groups)
    if layer.kind is Kind.LINEAR and scheme.rotation.includes(layer.channels, layer.outputs):
        groups += (
            FLOAT_BITS * layer.tokens * layer.channels * int(log2(rotation_width(layer.channels)))
        )
    return groups
