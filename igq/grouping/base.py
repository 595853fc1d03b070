"""The type `Grouping`, and the quantizers that every kind of grouping makes.

A layer's activation is cut into *slices*. Slices either pick, in each image, one of G groups whose
bounds (l_i, u_i) were fitted at calibration, or have a range of their own in each image. Each kind
of grouping is one file beside this one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from igq.arithmetic.affine import Bits, affine_parameters, check_bits, fake_quantize
from igq.errors import InvalidArgumentError
from igq.grouping.fitting import fit_bounds
from igq.layer import Layer
from igq.scheme import Assignment

FLOAT_BITS = 32
"""Bits of the operations that grouping adds (Table 1)."""
SMALLEST_WIDTH = 1e-12
"""The smallest width of a range that is divided by."""


class Groups(NamedTuple):
    """The bounds of each group, and the scale and zero point that follow from them (Eq. 1, 2)."""

    lower: Float[Tensor, " groups"]
    upper: Float[Tensor, " groups"]
    scale: Float[Tensor, " groups"]
    zero_point: Float[Tensor, " groups"]


@dataclass(frozen=True)
class Grouping(ABC):
    """A way of cutting an activation into slices that are quantized with ranges of their own.

    >>> from igq.grouping import Channels
    >>> isinstance(Channels(), Grouping), Channels().tag
    (True, 'channels')
    """

    fitted: ClassVar[bool]
    """Whether bounds are fitted at calibration; otherwise each slice takes its own range."""

    @property
    @abstractmethod
    def tag(self) -> str:
        """The name of this kind in files."""

    @property
    def keeps_sum(self) -> bool:
        """Whether a row gets back the part of its sum of 1 that quantization loses."""
        return False

    def most_groups(self, layer: Layer) -> int:
        """Return the groups of the limit in which every slice has a range of its own."""
        return 1

    @abstractmethod
    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        """Return (min, max) of each slice in each image; reduced axes have length 1 (Eq. 4)."""

    @abstractmethod
    def fit(
        self, ranges: Float[Tensor, "images slices 2"] | None, num_groups: Sequence[int], bits: int
    ) -> Mapping[int, "Quantizer"]:
        """Return a quantizer for every number of groups, from the ranges of calibration images."""

    def group_bops(self, layer: Layer, num_groups: int) -> int:
        """Return the BOPs that `num_groups` groups add to the layer's product on one image.

        Raises:
            InvalidArgumentError: the number of groups of such a layer is fixed.
        """
        raise InvalidArgumentError(
            f"{layer.name} has no groups to choose, but got {num_groups} groups for it."
        )

    def constant_bops(self, layer: Layer) -> int:
        """Return the BOPs that a layer adds to its product whatever its number of groups."""
        if not self.keeps_sum:
            return 0
        return FLOAT_BITS * (layer.tokens * layer.channels + 3 * layer.tokens * layer.outputs)

    def quantize_own_ranges(
        self,
        x: Float[Tensor, "images ..."],
        bits: Bits,
        num_groups: int | Int[Tensor, ""] = 1,
    ) -> Float[Tensor, "images ..."]:
        """Fake-quantize each slice with its own minimum and maximum as bounds (Eq. 1-3)."""
        lower, upper = self.ranges(x).unbind(-1)
        return self.completed(fake_quantize(x, *affine_parameters(lower, upper, bits), bits))

    def completed(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Return quantized values with the lost part of each row's sum spread over its keys.

        Most entries of a softmax row lie below half a step and become 0. Then the product with v
        lacks their share of v, for which the mean of v stands here (our choice).
        """
        if not self.keeps_sum:
            return x
        return x + (1 - x.sum(-1, keepdim=True)) / x.shape[-1]


@dataclass(frozen=True)
class FittedGrouping(Grouping):
    """A grouping whose slices pick, in each image, one of the groups fitted at calibration."""

    assignment: Assignment = Assignment.NEAREST
    fitted: ClassVar[bool] = True

    def fit(
        self, ranges: Float[Tensor, "images slices 2"] | None, num_groups: Sequence[int], bits: int
    ) -> Mapping[int, "Quantizer"]:
        assert ranges is not None  # observed for every fitted grouping
        bounds = fit_bounds(ranges, num_groups, self.assignment)
        check_bits(bits)
        return {g: GroupQuantizer(*bounds[g], bits, self) for g in num_groups}

    def quantize(
        self, x: Float[Tensor, "images ..."], groups: Groups, bits: Bits
    ) -> Float[Tensor, "images ..."]:
        """Fake-quantize each slice with the scale and zero point of the group it picks (Eq. 5)."""
        scale, zero_point = groups.scale, groups.zero_point
        if len(scale) > 1:
            group = assign(self.ranges(x), groups, self.assignment)
            scale, zero_point = scale[group], zero_point[group]
        return self.completed(fake_quantize(x, scale, zero_point, bits))


@dataclass(frozen=True, eq=False)
class GroupQuantizer:
    """Fitted quantizers of one layer: the bounds of each group. Made by `Grouping.fit`.

    `lower` and `upper` are (groups,). Calling it fake-quantizes a tensor, each slice of each image
    with the bounds that it picks by its own range (Eq. 5, or as the grouping's rule says).

    >>> import torch
    >>> from igq.grouping import Channels
    >>> bounds = torch.tensor([-1.0, -9.0]), torch.tensor([1.0, 9.0])
    >>> quantizer = GroupQuantizer(*bounds, bits=2, grouping=Channels())
    >>> x = torch.tensor([[[-1.0, -8.0], [0.6, 8.0]]])  # 1 image, 2 tokens, 2 channels
    >>> quantizer.assign(x).tolist()
    [[[0, 1]]]
    >>> quantizer(x)[0, 1].tolist()
    [0.6666666865348816, 6.0]
    """

    lower: Float[Tensor, " groups"]
    upper: Float[Tensor, " groups"]
    bits: int
    grouping: FittedGrouping

    @property
    def groups(self) -> Groups:
        """The bounds with scale and zero point (Eq. 1 and 2)."""
        parameters = affine_parameters(self.lower, self.upper, self.bits)
        return Groups(self.lower, self.upper, *parameters)

    @property
    def num_groups(self) -> int:
        """The number of groups that a slice chooses from."""
        return len(self.lower)

    def assign(self, x: Float[Tensor, "images ..."]) -> Int[Tensor, "images ..."]:
        """Return the group of each slice in each image; reduced axes have length 1 (Eq. 5)."""
        return assign(self.grouping.ranges(x), self.groups, self.grouping.assignment)

    def __call__(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize `x`, each slice with the bounds of its own group (Eq. 5)."""
        return self.grouping.quantize(x, self.groups, self.bits)


@dataclass(frozen=True)
class SliceQuantizer:
    """One quantizer for each slice, its bounds the slice's own range; nothing is fitted.

    >>> import torch
    >>> from igq.grouping import TOKENS
    >>> SliceQuantizer(bits=2, grouping=TOKENS)(torch.tensor([[0.0, 2.0, 3.0]])).tolist()
    [[0.0, 2.0, 3.0]]
    """

    bits: int
    grouping: Grouping
    num_groups: int = 1
    """Contiguous groups of a token or a softmax row; 1 for every other grouping."""

    def __call__(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize `x`, each slice with its own minimum and maximum as bounds."""
        return self.grouping.quantize_own_ranges(x, self.bits, self.num_groups)


Quantizer = GroupQuantizer | SliceQuantizer
"""A quantizer of an activation."""


def assign(
    ranges: Float[Tensor, "*slices 2"], groups: Groups, assignment: Assignment
) -> Int[Tensor, "*slices"]:
    """Return the group that each slice picks by its range (Eq. 5).

    >>> import torch
    >>> from igq.grouping import Rows
    >>> groups = GroupQuantizer(torch.zeros(2), torch.tensor([1.0, 9.0]), 4, Rows()).groups
    >>> assign(torch.tensor([[0.1, 2.0], [0.0, 7.0]]), groups, Assignment.NEAREST).tolist()
    [0, 1]
    """
    if assignment is Assignment.NEAREST:
        return squared_distance(ranges, groups).argmin(-1)
    return expected_error(ranges, groups).argmin(-1)


def squared_distance(
    ranges: Float[Tensor, "*slices 2"], groups: Groups
) -> Float[Tensor, "*slices groups"]:
    """Return how far each range lies from the bounds of each group (Eq. 4)."""
    return (ranges[..., :1] - groups.lower).square() + (ranges[..., 1:] - groups.upper).square()


def expected_error(
    ranges: Float[Tensor, "*slices 2"], groups: Groups
) -> Float[Tensor, "*slices groups"]:
    """Return the mean squared error to expect of a slice's values with each group (our choice).

    The density of values is taken for a triangle over the slice's range: most values lie in the
    middle, so that a bound which lies within the range by d clips little, d^4 / 3 width^2, and
    never more than d^2. Values that are not clipped are rounded: scale^2 / 12.

    >>> import torch
    >>> from igq.grouping import Channels
    >>> groups = GroupQuantizer(-torch.ones(1), torch.ones(1), 2, Channels()).groups
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


def range_over(
    x: Float[Tensor, "images ..."], axes: tuple[int, ...]
) -> Float[Tensor, "images ... 2"]:
    """Return (min, max) over these axes, which are kept with length 1."""
    if not axes:  # torch would reduce over everything
        return torch.stack((x, x), dim=-1)
    return torch.stack((x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)), dim=-1)
