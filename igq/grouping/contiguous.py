"""Contiguous groups: channels of a token, or keys of a softmax row, each with its own range.

The axis that a product sums over is `num_cells` cells of equal width, of which the last may be
shorter. G groups are runs of ceil(cells / G) cells, and again the last may be shorter. Each group
of each row of each image is quantized with its own minimum and maximum: nothing is fitted, and a
huge value widens the steps of its own group alone. As many partial sums as groups are added in
floating point, as for the groups of the paper (Table 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from igq.arithmetic.affine import Bits, affine_parameters, check_bits, fake_quantize
from igq.grouping.base import FLOAT_BITS, Grouping, Quantizer, SliceQuantizer
from igq.layer import Layer

CELLS = 24
"""Cells of a token's channels: many numbers of groups divide it (our choice)."""
MOST_CELLS = 32
"""Where 24 does not divide the channels, the greatest number up to this that does."""
FEWEST_CELLS = 12
"""Where that would be fewer, about 24 cells, of which the last is shorter."""


@dataclass(frozen=True)
class Contiguous(Grouping):
    """Groups of neighbours along the last axis; ranges are taken while quantizing."""

    fitted: ClassVar[bool] = False

    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        """Refuse: contiguous groups are never observed, as their ranges belong to one image.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("contiguous groups take their ranges while quantizing")

    def fit(
        self, ranges: Float[Tensor, "images slices 2"] | None, num_groups: Sequence[int], bits: int
    ) -> Mapping[int, Quantizer]:
        return {g: SliceQuantizer(check_bits(bits), self, g) for g in num_groups}

    def most_groups(self, layer: Layer) -> int:
        return num_cells(layer.channels)

    def quantize_own_ranges(
        self,
        x: Float[Tensor, "images ..."],
        bits: Bits,
        num_groups: int | Int[Tensor, ""] = 1,
    ) -> Float[Tensor, "images ..."]:
        return self.completed(fake_quantize_contiguous(x, num_groups, bits))


@dataclass(frozen=True)
class ContiguousChannels(Contiguous):
    """Each token's channels in contiguous groups; the input of a linear layer."""

    @property
    def tag(self) -> str:
        return "token groups"

    def group_bops(self, layer: Layer, num_groups: int) -> int:
        """Return 32 [2 N C + G N D]: the partial sums, and one multiplication of each output."""
        n, c, d = layer.tokens, layer.channels, layer.outputs
        return FLOAT_BITS * (2 * n * c + contiguous_groups(c, num_groups) * n * d)


@dataclass(frozen=True)
class ContiguousKeys(Contiguous):
    """Each softmax row's keys in contiguous groups; rows keep their sum of 1."""

    @property
    def tag(self) -> str:
        return "key groups"

    @property
    def keeps_sum(self) -> bool:
        return True

    def group_bops(self, layer: Layer, num_groups: int) -> int:
        """Return 32 [N K + G N D]: a group of a row has a maximum alone."""
        n, c, d = layer.tokens, layer.channels, layer.outputs
        return FLOAT_BITS * (n * c + contiguous_groups(c, num_groups) * n * d)


def num_cells(length: int) -> int:
    """Return the number of cells of an axis of this length: the most groups that it can be in.

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


def contiguous_groups(length: int, num_groups: int) -> int:
    """Return the groups that an axis really is in where `num_groups` are asked for.

    >>> contiguous_groups(192, 8), contiguous_groups(192, 10), contiguous_groups(10, 16)
    (8, 8, 10)
    """
    cells = num_cells(length)
    return -(-cells // -(-cells // num_groups))


def contiguous_starts(length: int, num_groups: int) -> tuple[int, ...]:
    """Return the first element of each group of an axis, and its length at last.

    >>> contiguous_starts(192, 3), contiguous_starts(10, 4)
    ((0, 64, 128, 192), (0, 3, 6, 9, 10))
    """
    cells = num_cells(length)
    width = -(-length // cells) * -(-cells // num_groups)
    return (*range(0, length, width), length)


def fake_quantize_contiguous(
    x: Float[Tensor, "*rows length"], num_groups: int | Int[Tensor, ""], bits: Bits
) -> Float[Tensor, "*rows length"]:
    """Fake-quantize each contiguous group of each row with its own range (Eq. 1-3).

    Both numbers may be tensors, where they may change without compiling anew.

    >>> x = torch.tensor([[0.9, 0.0, 90.0, 40.0]])
    >>> fake_quantize_contiguous(x, num_groups=2, bits=2).tolist()
    [[0.8999999761581421, 0.0, 90.0, 30.0]]
    """
    length = x.shape[-1]
    count = num_cells(length)
    # bounds are widened to hold 0 in any case: a start of 0, or filling up with 0, changes nothing
    cells = F.pad(x, (0, -length % count)).unflatten(-1, (count, -1))
    run = torch.arange(count, device=x.device) // ((count + num_groups - 1) // num_groups)
    low, high = _extremes(cells)
    index = run.expand(low.shape)
    start = torch.zeros_like(low)
    lower = start.scatter_reduce(-1, index, low, "amin").gather(-1, index)
    upper = start.scatter_reduce(-1, index, high, "amax").gather(-1, index)
    scale, zero_point = affine_parameters(lower[..., None], upper[..., None], bits)
    return fake_quantize(cells, scale, zero_point, bits).flatten(-2)[..., :length]


def _extremes(
    x: Float[Tensor, "*rows cells width"],
) -> tuple[Float[Tensor, "*rows cells"], Float[Tensor, "*rows cells"]]:
    """Return minimum and maximum of each cell, by halves: it compiles to two thirds of the time."""
    low = high = x
    while low.shape[-1] % 2 == 0:
        half = low.shape[-1] // 2
        low = low[..., :half].minimum(low[..., half:])
        high = high[..., :half].maximum(high[..., half:])
    return low.amin(-1), high.amax(-1)
