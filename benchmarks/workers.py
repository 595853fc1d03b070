"""Trials on one worker and on two, of one thread each, and the driver's time for a trial.

    python -m benchmarks.workers [--models digits vit_tiny_patch16_224] [--trials 400 24]

One worker is this process, as for `igq search --workers 1`; several are Ray's. Weights and images
are random, and a trial is one message. The first quarter of the trials, in which workers start, is
left out. The driver's process computes proposals, the pruner and the journal, which are ours, and
Ray Tune; with one worker the trials as well. The search's own proposals share layers with earlier
ones, by which trials are shorter, and are others in each run: --drawn has the same random ones for
any number of workers, so that their times can be compared.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import torch

import igq
from benchmarks.phases import drawn
from benchmarks.real import machine
from benchmarks.scaling import Drawn, proposals_of
from igq import Observation, Options
from igq.costs import bops_table
from igq.evaluation import log_probabilities
from igq.quantized import quantize_weights
from pipeline.cluster import Cluster, InProcess
from pipeline.cluster.ray import RayCluster
from pipeline.evaluation.task import Task
from pipeline.searching.driver import Driver, Plan
from pipeline.study.trials import Proposal
from pipeline.tracking import InMemoryTracker

NUM_GROUPS = (2, 4, 8)


class Watched:
    """A feed that notes when trials end, and the time that it takes itself."""

    def __init__(self, feed: Driver) -> None:
        self.feed = feed
        self.ended: list[tuple[float, float, float]] = []
        """Wall, the process's time and the feed's own, in seconds, at the end of each trial."""
        self._own = 0.0

    @property
    def left(self) -> int:
        return self.feed.left

    def next(self) -> Proposal | None:
        with self._measured():
            return self.feed.next()

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        with self._measured():
            return self.feed.report(number, chunk, observation)

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        assert error is None, error
        with self._measured():
            self.feed.finish(number, seconds, error, node)
        self.ended.append((perf_counter(), process_time(), self._own))

    @contextmanager
    def _measured(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self._own += time.thread_time() - start


def main() -> None:
    """Print the milliseconds of a trial by model and workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["digits", "vit_tiny_patch16_224"])
    parser.add_argument("--trials", type=int, nargs="+", default=[400, 24], help="of each model")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--drawn", action="store_true", help="the same random trials for all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.images} images; {machine()}; ms a trial")
    print("| model | layers | trials | workers | by the clock | driver's process | of it ours |")
    print("|---" * 7 + "|", flush=True)
    for name, trials in zip(options.models, options.trials, strict=True):
        task = task_of(name, options.images)
        clock = {w: measured(task, name, trials, w, options.drawn) for w in options.workers}
        for workers in set(clock) - {1} if 1 in clock else ():
            print(f"{name}: {clock[1] / clock[workers]:.2f} times as fast by {workers} workers")


def task_of(name: str, count: int) -> Task:
    """Return the task of trials that are one message each."""
    model, images = drawn(name, count)
    observed = igq.observe(model, images[:8], igq.Scheme.PAPER)
    candidates = igq.fit(observed, num_groups=NUM_GROUPS, bits=4)
    weights, reference = {4: quantize_weights(model, 4)}, log_probabilities(model, images)
    return Task(model, weights, candidates, images, reference, count)


def measured(task: Task, name: str, trials: int, workers: int, at_random: bool) -> float:
    """Print the row of trials by so many workers; return the milliseconds of each by the clock."""
    options = Options((4,), (4,), NUM_GROUPS)
    limits = bops_table(task.candidates.layers, igq.Scheme.PAPER, options).limit(uniform=4)
    cluster: Cluster = InProcess() if workers == 1 else RayCluster(workers=workers)
    with tempfile.TemporaryDirectory(prefix="igq-") as folder:
        proposals = proposals_of(Path(folder), limits)
        if at_random:
            proposals._study.sampler = Drawn(limits)
        plan = Plan(trials, len(task.images), limits.budget)
        watched = Watched(Driver(proposals, InMemoryTracker(), plan))
        cluster.run(task, watched)
    start = trials // 4
    first, last = watched.ended[start], watched.ended[-1]
    each = 1e3 / (len(watched.ended) - 1 - start)
    wall, process, own = (each * (b - a) for a, b in zip(first, last, strict=True))
    cells = f"{name} | {len(limits.names)} | {trials} | {workers} | {wall:.1f}"
    print(f"| {cells} | {process:.1f} | {own:.1f} |", flush=True)
    return wall


if __name__ == "__main__":
    main()
