"""One slice: the range of everything in an image, with one group of fixed bounds."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from igq.grouping.base import FittedGrouping, range_over


@dataclass(frozen=True)
class Whole(FittedGrouping):
    """The input of the patch embedding: its bounds are those of all calibration images."""

    @property
    def tag(self) -> str:
        return "whole"

    def ranges(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ... 2"]:
        return range_over(x, tuple(range(1, x.ndim)))
