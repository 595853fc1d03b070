"""One quantizer for each token or channel, with its own range in each image; no groups to choose.

A scale of their own for each token of q and k, each channel of v and the classifier's one token
factors out of the product, whatever the allocation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from igq.arithmetic.affine import check_bits
from igq.grouping.base import FLOAT_BITS, Grouping, Quantizer, SliceQuantizer, range_over
from igq.layer import Layer


@dataclass(frozen=True)
class PerSlice(Grouping):
    """Slices with a range of their own, taken over some of the last axes.

    >>> import torch
    >>> PerSlice("tokens", (-1,)).ranges(torch.tensor([[1.0, 5.0]])).tolist()
    [[[1.0, 5.0]]]
    """

    name: str
    axes: tuple[int, ...]
    """Axes that a range is taken over, counted from the last."""
    fitted: ClassVar[bool] = False

    @property
    def tag(self) -> str:
        return self.name

    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        return range_over(x, self.axes)

    def fit(
        self, ranges: Float[Tensor, "images slices 2"] | None, num_groups: Sequence[int], bits: int
    ) -> Mapping[int, Quantizer]:
        return {g: SliceQuantizer(check_bits(bits), self, g) for g in num_groups}

    def constant_bops(self, layer: Layer) -> int:
        """Return 32 [2 N C + N D]: ranges, and one multiplication more for each output."""
        n, c, d = layer.tokens, layer.channels, layer.outputs
        return FLOAT_BITS * (2 * n * c + n * d)


TOKENS = PerSlice("tokens", (-1,))
"""The classifier's input, (images, channels): each token."""
HEAD_TOKENS = PerSlice("head tokens", (-1,))
"""q or k, (images, heads, tokens, width): each token of a head."""
HEAD_CHANNELS = PerSlice("head channels", (-2,))
"""v, (images, heads, tokens, width): each channel of a head."""
