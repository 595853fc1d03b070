"""Preprocessed images in a fixed order."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Preprocessed images in a fixed order, with labels where there are any."""

    source: str
    values: Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"] | None
    fingerprint: str
    """A hash of the preprocessed values, in order."""

    def __len__(self) -> int:
        return len(self.values)
