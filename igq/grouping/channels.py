"""Channels of a linear layer's input, each picking a fitted group in each image (Eq. 4-6)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from igq.grouping.base import FLOAT_BITS, FittedGrouping, range_over
from igq.layer import Layer
from igq.scheme import Assignment

OPERATIONS = {Assignment.NEAREST: 4, Assignment.LEAST_ERROR: 16}
"""32-bit operations for each channel and group: the distance of Eq. 4, or for both bounds a
difference, its positive part, a product with 1 / width, two squares, the lesser of one and 1 and a
product, and two sums."""


@dataclass(frozen=True)
class Channels(FittedGrouping):
    """Slices are channels of (images, ..., channels); a range is taken over tokens.

    >>> import torch
    >>> Channels().ranges(torch.tensor([[[1.0, 5.0], [3.0, 4.0]]])).tolist()
    [[[[1.0, 3.0], [4.0, 5.0]]]]
    """

    @property
    def tag(self) -> str:
        return "channels"

    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        return range_over(x, tuple(range(1, x.ndim - 1)))

    def group_bops(self, layer: Layer, num_groups: int) -> int:
        """Return 32 [2 N C + 4 C G + (G - 1) N D], or 16 C G for least error; 0 for one group."""
        if num_groups == 1:
            return 0
        n, c, d, g = layer.tokens, layer.channels, layer.outputs, num_groups
        picking = OPERATIONS[self.assignment] * c * g
        return FLOAT_BITS * (2 * n * c + picking + (g - 1) * n * d)
