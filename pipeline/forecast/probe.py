"""The speed of a space's model on this machine, tried for about two seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor, nn

import igq
from igq.quantized import Execution
from igq.threads import with_threads
from pipeline.data import ImageSource
from search_spaces import SearchSpace

BATCH = 8
"""Most images at once; a trial has as many between two reports, with 64 search images."""
EACH = 1 / 2
"""Seconds for each of the four things that are tried (our choice)."""
SPUN = 0.1
"""Seconds on a processor in which its sharing with others is tried (our choice)."""
COMPILED = 1.1
"""Full-precision passes of a compiled candidate (docs/reports/0027-candidate-cost.md)."""


@dataclass(frozen=True)
class Rates:
    """Seconds of one image on this machine.

    >>> Rates(reading=0.01, full=0.02, quantized=0.03).full
    0.02
    """

    reading: float
    """From the file to the model's input."""
    full: float
    """One pass of the full-precision model."""
    quantized: float
    """One pass of a quantized model, with as many threads as a worker has."""
    slowdown: float = 1.0
    """How many times longer any work takes than on this machine where nothing else runs."""
    one_thread: float | None = None
    """One pass of the full-precision model with one thread, where that is another time."""

    @property
    def gradients(self) -> float:
        """One pass of all that follows gradients, which takes one thread of a CPU."""
        return self.full if self.one_thread is None else self.one_thread


def probe(
    space: SearchSpace,
    model: nn.Module,
    source: ImageSource,
    execution: Execution,
    threads: int,
) -> Rates:
    """Try how fast images are read and pass through the model; `threads` are those of a worker.

    A compiled model is not tried, as compiling takes long: its time follows from a report.

    Raises:
        DataError: an image cannot be read.
    """
    seconds_of = partial(seconds_each, seconds=EACH)
    reading = seconds_of(lambda count: [source.read(i) for i in range(count)], source.size)
    images = torch.stack([source.read(place % source.size)[0] for place in range(BATCH)])
    images = images.to(next(model.parameters()).device)
    full = seconds_of(_passes(model, images), BATCH)
    with with_threads(1):
        on_cpu = images.device.type == "cpu"
        one_thread = seconds_of(_passes(model, images), BATCH) if on_cpu else None
    with with_threads(threads):
        if execution.compiled:
            quantized = COMPILED * seconds_of(_passes(model, images), BATCH)
        else:
            quantized = seconds_of(_passes(_quantized(space, model, images), images), BATCH)
    return Rates(reading, full, quantized, slowdown(), one_thread)


def slowdown(seconds: float = SPUN) -> float:
    """Return the time on the clock of a thread that computes, in its time on a processor.

    >>> slowdown(0.01) > 0.5
    True
    """
    begun, spun = perf_counter(), thread_time()
    while thread_time() - spun < seconds:
        pass
    return (perf_counter() - begun) / (thread_time() - spun)


def seconds_each(run: Callable[[int], object], most: int, seconds: float) -> float:
    """Return the seconds that one of several takes, at most so many at once.

    `run` takes how many; it is called for about `seconds`, once at least.

    >>> seconds_each(lambda count: sum(range(count)), most=9, seconds=0.001) < 0.1
    True
    """
    once = _seconds(run, 1)  # the first also pays for what later ones find ready
    if once < seconds:
        once = _seconds(run, 1)
    count = max(1, min(most, int(seconds / 2 / max(once, 1e-9))))
    end, times = perf_counter() + seconds - 2 * once, [once]
    while perf_counter() < end:
        times.append(_seconds(run, count) / count)
    return median(times[1:] or times)


def _seconds(run: Callable[[int], object], count: int) -> float:
    start = perf_counter()
    run(count)
    return perf_counter() - start


def _passes(model: nn.Module, images: Tensor) -> Callable[[int], object]:
    def run(count: int) -> object:
        with torch.inference_mode():
            return model(images[:count]).cpu()

    return run


def _quantized(space: SearchSpace, model: nn.Module, images: Tensor) -> nn.Module:
    """Return the model with one number of groups everywhere; values do not change the time."""
    weights, activations = space.base_bits
    groups = space.num_groups[len(space.num_groups) // 2]
    candidates = igq.fit(igq.observe(model, images[:1], space.scheme), (groups,), activations)
    chosen = candidates.select(igq.uniform(candidates.layers, groups))
    return igq.quantize(model, chosen, weights)
