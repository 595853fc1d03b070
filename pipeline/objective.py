"""What a trial computes: the KLs of an allocation, image by image. Knows nothing of searching."""

import copy
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq import Candidates
from igq.affine import QuantizedTensor
from igq.evaluation import divergences, padded, shifts
from igq.mixed import WeightsByBits, select_weights
from igq.settings import Choice
from igq.vit import (
    EAGER,
    Execution,
    accelerate,
    assemble,
    set_quantizers,
    set_weights,
    stage_of,
    stages,
)

MEMORY = 512 * 2**20
"""Bytes of activations that a worker keeps for later trials, of each device (our choice)."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a worker needs to evaluate any allocation; it is sent to each worker once."""

    model: nn.Module
    """The model that the weights belong to; its normalisations and biases may be corrected."""
    weights: Mapping[str, QuantizedTensor]
    candidates: Candidates
    images: Float[Tensor, "images channels height width"]
    """The search images, in the model's normalisation."""
    reference: Float[Tensor, "images classes"]
    """The full-precision model's log probabilities of them."""
    chunk_size: int
    """Images between two reports."""
    execution: Execution = EAGER
    """How the quantized model is computed."""
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


@dataclass(frozen=True)
class Seen:
    """What an allocation does to some images, one after the other."""

    kls: list[float]
    """In nats (Eq. 9)."""
    shifts: list[float]
    """Mean squared change of the logits."""


class Prefixes:
    """Activations between two steps of the forward pass, the latest used ones, up to a size.

    Two trials that agree in all layers before a step have the same activation there.
    """

    def __init__(self, memory: int) -> None:
        self._memory, self._bytes = memory, 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def last(self, keys: Iterable[Hashable]) -> tuple[int, Tensor] | None:
        """The last of the keys that something is kept under, its place, and that.

        What is kept under those before it counts as used too: the next trial may need it.
        """
        found = None
        for place, key in enumerate(keys):
            if key in self._kept:
                self._kept.move_to_end(key)
                found = place, self._kept[key]
        return found

    def keep(self, key: Hashable, x: Tensor) -> None:
        """Keep an activation, and let go of those that were not used for longest."""
        if key not in self._kept:
            self._kept[key] = x
            self._bytes += x.nbytes
        while self._bytes > self._memory:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class Objective:
    """Evaluates allocations on one device; holds one quantized model and reuses it.

    A trial starts where it first differs from one whose activations are still kept.
    """

    def __init__(
        self, task: Task, device: torch.device | str = "cpu", memory: int = MEMORY
    ) -> None:
        self._task, self._device = task, torch.device(device)
        model = copy.deepcopy(task.model).to(self._device)
        fitted = task.candidates
        anything = {name: next(iter(found.values())) for name, found in fitted.quantizers.items()}
        made = assemble(model, anything, task.weights)
        self._model = accelerate(made, task.execution, max(fitted.num_groups))
        self._images = task.images.to(self._device)
        self._reference = task.reference.to(self._device)
        self._prefixes = Prefixes(memory)

    @torch.inference_mode()
    def evaluate(self, allocation: Mapping[str, Choice]) -> Iterator[Seen]:
        """Yield what each chunk of search images shows, in turn.

        Raises:
            InvalidArgumentError: the allocation does not fit the candidates.
            FloatingPointError: a KL is not finite.
        """
        task = self._task
        set_quantizers(self._model, task.candidates.select(allocation))
        set_weights(self._model, task.weights_of(allocation))
        steps = stages(self._model)
        known = self._known(allocation, len(steps))
        chunks = zip(
            self._images.split(task.chunk_size),
            self._reference.split(task.chunk_size),
            strict=True,
        )
        for chunk, (images, reference) in enumerate(chunks):
            keys = [(chunk, step, before) for step, before in enumerate(known)]
            start = padded(images, min(task.chunk_size, len(task.images)))
            first, x = self._prefixes.last(keys) or (0, start)
            for step in range(first, len(steps)):
                if step > first:
                    self._prefixes.keep(keys[step], x)
                x = steps[step](x)
            outputs = x[: len(images)].float().log_softmax(-1)
            kls = divergences(reference, outputs)
            if not kls.isfinite().all():
                raise FloatingPointError("the KL of an image is not finite")
            yield Seen(kls.tolist(), shifts(reference, outputs).tolist())

    def _known(self, allocation: Mapping[str, Choice], steps: int) -> list[Hashable]:
        """For each step of the forward pass, all of the allocation that its input depends on."""
        layers = self._task.candidates.layers
        at = {layer.name: stage_of(layer) % steps for layer in layers}
        return [
            tuple(choice for name, choice in allocation.items() if at[name] < step)
            for step in range(steps)
        ]


@dataclass(frozen=True)
class Report:
    """What a worker says after each chunk of a trial: numbers, or the error that ended it."""

    chunk: int
    seen: Seen
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
            for chunk, seen in enumerate(self.objective.evaluate(allocation)):
                last = chunk + 1 == self.task.num_chunks
                yield Report(chunk, seen, perf_counter() - start, last)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            yield Report(chunk, Seen([], []), perf_counter() - start, last=True, error=text)
