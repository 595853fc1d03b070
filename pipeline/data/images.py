"""Preprocessed images in a fixed order, in memory or read when they are needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.data.stream import Block, Stream


@dataclass(frozen=True, eq=False)
class Images:
    """Preprocessed images in a fixed order, with labels where there are any."""

    source: str
    values: Float[Tensor, "images channels height width"] | Stream
    """In the model's normalisation; a stream where they are too many to keep."""
    labels: Int[Tensor, " images"] | None
    fingerprint: str
    """A hash of the preprocessed values, in order."""
    places: Sequence[int] = ()
    """The place of each in its source; none where they were not drawn from one."""

    def __len__(self) -> int:
        return len(self.values)

    def loaded(self) -> Float[Tensor, "images channels height width"]:
        """Return all values as one tensor; those of a stream are read."""
        if isinstance(self.values, Tensor):
            return self.values
        return torch.cat([unit.values for unit in self.values.units()])

    def blocks(self, batch_size: int, memory: int = 0) -> Iterator[Block]:
        """Yield all images in blocks of whole batches: one block where they are in memory."""
        if isinstance(self.values, Tensor):
            yield Block(self.values, self.labels)
            return
        for block in self.values.blocks(batch_size, memory):
            yield block if self.labels is not None else Block(block.values, None)
