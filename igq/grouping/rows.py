"""Rows of a softmax map, each picking a fitted group in each image (Eq. 7-8)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from igq.grouping.base import FLOAT_BITS, FittedGrouping, range_over
from igq.layer import Layer


@dataclass(frozen=True)
class Rows(FittedGrouping):
    """Slices are rows of (images, heads, queries, keys); a range is taken over keys.

    >>> import torch
    >>> Rows(unit=True).completed(torch.tensor([[[0.5, 0.25, 0.0, 0.0]]])).tolist()
    [[[0.5625, 0.3125, 0.0625, 0.0625]]]
    """

    unit: bool = False
    """Whether rows keep their sum of 1."""

    @property
    def tag(self) -> str:
        return "unit rows" if self.unit else "rows"

    @property
    def keeps_sum(self) -> bool:
        return self.unit

    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        return range_over(x, (x.ndim - 1,))

    def group_bops(self, layer: Layer, num_groups: int) -> int:
        """Return 32 [N K + 4 N G], as one row belongs to one group; 0 for one group."""
        if num_groups == 1:
            return 0
        return FLOAT_BITS * (layer.tokens * layer.channels + 4 * layer.tokens * num_groups)
