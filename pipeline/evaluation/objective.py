"""The objective of a trial: the KL of an allocation, image by image. Knows nothing of searching."""

import copy
from collections.abc import Hashable, Iterator, Mapping

import torch

from igq import Observation, Setting
from igq.evaluation import observation, padded
from igq.quantized import accelerate, assemble, set_quantizers, set_weights
from igq.vit import stage_of, stages
from pipeline.evaluation.prefixes import Prefixes
from pipeline.evaluation.task import Task

MEMORY = 512 * 2**20
"""Bytes of activations that a worker keeps for later trials, of each device (our choice)."""


class Objective:
    """Evaluates allocations on one device; holds one quantized model and reuses it.

    A trial starts at the first step where it differs from a trial whose activations are kept.
    """

    def __init__(
        self, task: Task, device: torch.device | str = "cpu", memory: int = MEMORY
    ) -> None:
        self._task, self._device = task, torch.device(device)
        model = copy.deepcopy(task.model).to(self._device)
        fitted = task.candidates
        anything = {name: next(iter(found.values())) for name, found in fitted.quantizers.items()}
        made = assemble(model, anything, next(iter(task.weights.values())))
        self._model = accelerate(made, task.execution, max(fitted.num_groups))
        self._images = task.images.to(self._device)
        self._reference = task.reference.to(self._device)
        self._prefixes = Prefixes(memory)

    @torch.inference_mode()
    def evaluate(self, allocation: Mapping[str, Setting]) -> Iterator[Observation]:
        """Yield the observation of each chunk of search images, in turn.

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
            yield observation(reference, x[: len(images)].float().log_softmax(-1))

    def _known(self, allocation: Mapping[str, Setting], steps: int) -> list[Hashable]:
        """Return the part of the allocation that the input of each step depends on."""
        layers = self._task.candidates.layers
        at = {layer.name: stage_of(layer) % steps for layer in layers}
        return [
            tuple(setting for name, setting in allocation.items() if at[name] < step)
            for step in range(steps)
        ]
