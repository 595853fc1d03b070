"""Instance-aware grouping: in each image every slice picks the group nearest to its range.

A layer has G groups with fixed bounds (l_i, u_i). A slice of one image with range (min, max)
lies at distance d = (min - l_i)^2 + (max - u_i)^2 from group i (Eq. 4) and is quantized with
the bounds of the nearest one (Eq. 5), or with those that let expect the least error of its values
(our choice). Linear inputs and softmax rows (Eq. 7-8) differ only in what a slice is. Where bounds
come from is told in `igq.fitting`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from igq.affine import Bits, affine_parameters, fake_quantize
from igq.layers import Assignment, Slices, slice_ranges
from igq.runs import fake_quantize_runs

SMALLEST_WIDTH = 1e-12
"""Of a range that is divided by."""


class Groups(NamedTuple):
    """The bounds of each group, and the scale and zero point that follow from them (Eq. 1, 2)."""

    lower: Float[Tensor, " groups"]
    upper: Float[Tensor, " groups"]
    scale: Float[Tensor, " groups"]
    zero_point: Float[Tensor, " groups"]


@dataclass(frozen=True, eq=False)
class GroupQuantizer:
    """Fitted quantizers of one layer: the bounds of each group. Made by `fit_groups`.

    `lower` and `upper` are (groups,). Calling it fake-quantizes a tensor, each slice of each image
    with the bounds that it picks by its own range (Eq. 5, or as `assignment` says).

    >>> import torch
    >>> bounds = torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0])
    >>> quantizer = GroupQuantizer(*bounds, bits=2, slices=Slices.CHANNELS)
    >>> x = torch.tensor([[[-1.0, -8.0], [0.6, 8.0]]])  # 1 image, 2 tokens, 2 channels
    >>> quantizer.assign(x).tolist()
    [[[0, 1]]]
    >>> quantizer(x)[0, 1].tolist()
    [0.6666666865348816, 6.0]
    """

    lower: Float[Tensor, " groups"]
    upper: Float[Tensor, " groups"]
    bits: int
    slices: Slices
    assignment: Assignment = Assignment.NEAREST

    @property
    def groups(self) -> Groups:
        """The bounds with scale and zero point (Eq. 1 and 2)."""
        parameters = affine_parameters(self.lower, self.upper, self.bits)
        return Groups(self.lower, self.upper, *parameters)

    @property
    def num_groups(self) -> int:
        """How many groups a slice chooses from."""
        return len(self.lower)

    def assign(self, x: Float[Tensor, "images ..."]) -> Int[Tensor, "images ..."]:
        """The group of each slice in each image; reduced axes have length 1 (Eq. 5)."""
        return assign(slice_ranges(x, self.slices), self.groups, self.assignment)

    def __call__(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize `x`, each slice with the bounds of its own group (Eq. 5)."""
        return quantize_slices(x, self.groups, self.bits, self.slices, self.assignment)


@dataclass(frozen=True)
class SliceQuantizer:
    """One quantizer for each slice, its bounds the slice's own range; nothing is fitted."""

    bits: int
    slices: Slices
    num_groups: int = 1
    """Of a token or a softmax row, where `slices.side_by_side`."""

    def __call__(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize `x`, each slice with its own minimum and maximum as bounds."""
        return quantize_own_ranges(x, self.bits, self.slices, self.num_groups)


Quantizer = GroupQuantizer | SliceQuantizer
"""What an activation can be quantized with."""


def assign(
    ranges: Float[Tensor, "*slices 2"], groups: Groups, assignment: Assignment
) -> Int[Tensor, "*slices"]:
    """The group that each slice picks by its range (Eq. 5).

    >>> import torch
    >>> groups = GroupQuantizer(torch.zeros(2), torch.tensor([1.0, 9.0]), 4, Slices.ROWS).groups
    >>> assign(torch.tensor([[0.1, 2.0], [0.0, 7.0]]), groups, Assignment.NEAREST).tolist()
    [0, 1]
    """
    if assignment is Assignment.NEAREST:
        return squared_distance(ranges, groups).argmin(-1)
    return expected_error(ranges, groups).argmin(-1)


def squared_distance(
    ranges: Float[Tensor, "*slices 2"], groups: Groups
) -> Float[Tensor, "*slices groups"]:
    """How far each range lies from the bounds of each group (Eq. 4)."""
    return (ranges[..., :1] - groups.lower).square() + (ranges[..., 1:] - groups.upper).square()


def expected_error(
    ranges: Float[Tensor, "*slices 2"], groups: Groups
) -> Float[Tensor, "*slices groups"]:
    """The mean squared error to expect of a slice's values with each group (our choice).

    Their density is taken for a triangle over the slice's range: most values lie in the middle, so
    that a bound which lies within the range by d clips little, d^4 / 3 width^2, and never more than
    d^2. What is not clipped is rounded: scale^2 / 12.

    >>> import torch
    >>> groups = GroupQuantizer(-torch.ones(1), torch.ones(1), 2, Slices.CHANNELS).groups
    >>> expected_error(torch.tensor([[-2.0, 2.0]]), groups)  # 2 / 48 + (2 / 3)^2 / 12
    tensor([[0.0787]])
    """
    least, most = ranges[..., :1], ranges[..., 1:]
    width = (most - least).clamp(min=SMALLEST_WIDTH)
    below = (groups.lower.clamp(max=0) - least).clamp(min=0)
    above = (most - groups.upper.clamp(min=0)).clamp(min=0)
    return _clipped(below, width) + _clipped(above, width) + groups.scale.square() / 12


def _clipped(
    beyond: Float[Tensor, "*slices groups"], width: Float[Tensor, "*slices 1"]
) -> Float[Tensor, "*slices groups"]:
    return beyond.square() * ((beyond / width).square() / 3).clamp(max=1)


def quantize_slices(
    x: Float[Tensor, "images ..."],
    groups: Groups,
    bits: Bits,
    slices: Slices,
    assignment: Assignment,
) -> Float[Tensor, "images ..."]:
    """Fake-quantize each slice with the scale and zero point of the group it picks."""
    scale, zero_point = groups.scale, groups.zero_point
    if len(scale) > 1:
        group = assign(slice_ranges(x, slices), groups, assignment)
        scale, zero_point = scale[group], zero_point[group]
    return completed(fake_quantize(x, scale, zero_point, bits), slices)


def quantize_own_ranges(
    x: Float[Tensor, "images ..."],
    bits: Bits,
    slices: Slices,
    num_groups: int | Int[Tensor, ""] = 1,
) -> Float[Tensor, "images ..."]:
    """Fake-quantize each slice with its own range; `num_groups` of them where side by side."""
    if slices.side_by_side:
        return completed(fake_quantize_runs(x, num_groups, bits), slices)
    lower, upper = slice_ranges(x, slices).unbind(-1)
    parameters = affine_parameters(lower, upper, bits)
    return completed(fake_quantize(x, *parameters, bits), slices)


def completed(x: Float[Tensor, "images ..."], slices: Slices) -> Float[Tensor, "images ..."]:
    """Quantized values with what a row lost of its sum spread evenly over its keys (our choice).

    Most entries of a row lie below half a step and become 0. Then the product with v lacks their
    share of v, for which the mean of v stands here.

    >>> import torch
    >>> completed(torch.tensor([[[0.5, 0.25, 0.0, 0.0]]]), Slices.UNIT_ROWS).tolist()
    [[[0.5625, 0.3125, 0.0625, 0.0625]]]
    """
    if not slices.keeps_sum:
        return x
    return x + (1 - x.sum(-1, keepdim=True)) / x.shape[-1]
