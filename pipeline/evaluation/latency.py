"""Latency of several forms of a model, measured in turns in one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np

from igq.progress import Progress

Run = Callable[[np.ndarray], Any]
"""From images to logits."""
WARM_UP = 3
"""Rounds that are not counted: threads start, and memory is taken, in the first ones."""


@dataclass(frozen=True)
class Latency:
    """The latency of one form of a model at one size of batch."""

    name: str
    batch: int
    milliseconds: float
    """Median over the rounds, of the whole batch."""
    low: float
    """The lower quartile, in milliseconds."""
    high: float
    """The upper quartile, in milliseconds."""
    speed: float
    """The baseline's time as a multiple of this one's: the median over rounds."""
    megabytes: float | None
    """On disk; None where the form has no file."""
    load_seconds: float
    peak_megabytes: float | None = None
    """By how much loading and running raise a process's peak; None where it was not measured."""


@dataclass(frozen=True)
class Benchmark:
    """The latencies of an exported model, and the circumstances of measuring."""

    rows: tuple[Latency, ...]
    baseline: str
    """The name of the form that `speed` compares with."""
    processor: str
    target: str
    """The instruction set of igq's runtime; empty where it is not compiled."""
    threads: int
    rounds: int
    missing: tuple[str, ...]
    """A sentence for each form that could not be measured."""


@dataclass(frozen=True, eq=False)
class Form:
    """One form of a model, ready to run."""

    name: str
    run: Run
    megabytes: float | None
    load_seconds: float
    load: Callable[[], Run] | None = None
    """Loads it in another process; picklable."""
    imports: tuple[str, ...] = ()
    """Modules that loading it imports."""


def loaded(
    name: str, load: Callable[[], Run], megabytes: float | None, imports: tuple[str, ...] = ()
) -> Form:
    """Return a form that is loaded here, and how long that took."""
    for module in imports:
        import_module(module)
    start = perf_counter()
    run = load()
    return Form(name, run, megabytes, perf_counter() - start, load, imports)


def in_turns(
    forms: Sequence[Form], images: np.ndarray, rounds: int, progress: Progress
) -> list[list[float]]:
    """Return the milliseconds of each form in each round, after some that are not counted."""
    times: list[list[float]] = [[] for _ in forms]
    for number in range(WARM_UP + rounds):
        for form, taken in zip(forms, times, strict=True):
            start = perf_counter()
            form.run(images)
            taken.append(1e3 * (perf_counter() - start))
        progress((number + 1) / (WARM_UP + rounds))
    return [taken[WARM_UP:] for taken in times]


def latency(
    form: Form, batch: int, times: list[float], baseline: list[float], peak: float | None = None
) -> Latency:
    """Return the latency of a form from its milliseconds, and the baseline's in the same rounds."""
    low, _, high = quantiles(times, n=4, method="inclusive")
    speed = median(base / time for base, time in zip(baseline, times, strict=True))
    sizes = form.megabytes, form.load_seconds
    return Latency(form.name, batch, median(times), low, high, speed, *sizes, peak)
