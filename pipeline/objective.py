"""What a trial computes: the KLs of an allocation, image by image. Knows nothing of searching."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq import Candidates
from igq.affine import QuantizedTensor
from igq.evaluation import divergences
from igq.mixed import WeightsByBits, select_weights
from igq.settings import Choice
from igq.vit import assemble, set_quantizers, set_weights


@dataclass(frozen=True, eq=False)
class Task:
    """What a worker needs to evaluate any allocation; it is sent to each worker once."""

    model: nn.Module
    """The full-precision model."""
    weights: Mapping[str, QuantizedTensor]
    candidates: Candidates
    images: Float[Tensor, "images channels height width"]
    """The search images, in the model's normalisation."""
    reference: Float[Tensor, "images classes"]
    """The full-precision model's log probabilities of them."""
    chunk_size: int
    """Images between two reports."""
    weights_by_bits: WeightsByBits = field(default_factory=dict)
    """Where bits are searched: the weights with each number of bits."""

    def weights_of(self, allocation: Mapping[str, Choice]) -> Mapping[str, QuantizedTensor]:
        """The quantized weights under an allocation."""
        if not self.weights_by_bits:
            return self.weights
        return select_weights(self.weights_by_bits, allocation, self.candidates.layers)

    @property
    def num_chunks(self) -> int:
        """How many reports a trial makes when it is not stopped."""
        return -(-len(self.images) // self.chunk_size)


class Objective:
    """Evaluates allocations on one device; holds one quantized model and reuses it."""

    def __init__(self, task: Task, device: torch.device | str = "cpu") -> None:
        self._task, self._device = task, torch.device(device)
        model = copy.deepcopy(task.model).to(self._device)
        self._model = assemble(model, {}, task.weights)

    @torch.inference_mode()
    def evaluate(self, allocation: Mapping[str, Choice]) -> Iterator[list[float]]:
        """Yield the KLs of each chunk of search images in turn, in nats.

        Raises:
            InvalidArgumentError: the allocation does not fit the candidates.
            FloatingPointError: a KL is not finite.
        """
        task = self._task
        set_quantizers(self._model, task.candidates.select(allocation))
        set_weights(self._model, task.weights_of(allocation))
        chunks = zip(
            task.images.split(task.chunk_size), task.reference.split(task.chunk_size), strict=True
        )
        for images, reference in chunks:
            outputs = self._model(images.to(self._device)).float().log_softmax(-1).cpu()
            kls = divergences(reference, outputs)
            if not kls.isfinite().all():
                raise FloatingPointError("the KL of an image is not finite")
            yield kls.tolist()


@dataclass(frozen=True)
class Report:
    """What a worker says after each chunk of a trial: numbers, or the error that ended it."""

    chunk: int
    kls: list[float]
    seconds: float  # since the trial began
    last: bool
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Runs trials on a device; an error is a trial's last report, never an exception."""

    task: Task
    device: str

    @cached_property
    def objective(self) -> Objective:
        """Made once, by the first trial: should that fail, it is the trial that says why."""
        return Objective(self.task, self.device)

    def reports(self, allocation: Mapping[str, Choice]) -> Iterator[Report]:
        """Evaluate an allocation, chunk by chunk."""
        chunk, start = 0, perf_counter()
        try:
            for chunk, kls in enumerate(self.objective.evaluate(allocation)):
                last = chunk + 1 == self.task.num_chunks
                yield Report(chunk, kls, perf_counter() - start, last)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield Report(chunk, [], perf_counter() - start, last=True, error=text)
