"""A task: everything that a worker needs to evaluate any allocation."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from igq import Candidates, Setting
from igq.arithmetic.affine import QuantizedTensor
from igq.quantized import EAGER, Execution, WeightsByBits, select_weights


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that a worker needs to evaluate any allocation; sent to each worker once."""

    model: nn.Module
    """The model that the weights belong to; its normalisations and biases may be corrected."""
    weights: WeightsByBits
    """The weights with each number of bits; one entry where only groups are searched."""
    candidates: Candidates
    images: Float[Tensor, "images channels height width"]
    """The search images, in the model's normalisation."""
    reference: Float[Tensor, "images classes"]
    """The full-precision model's log probabilities of them."""
    chunk_size: int
    """Images between two reports."""
    execution: Execution = EAGER
    """How the quantized model is computed."""

    def weights_of(self, allocation: Mapping[str, Setting]) -> Mapping[str, QuantizedTensor]:
        """Return the quantized weights under an allocation."""
        return select_weights(self.weights, allocation, self.candidates.layers)

    @property
    def num_chunks(self) -> int:
        """The reports of a trial that is not stopped."""
        return -(-len(self.images) // self.chunk_size)
