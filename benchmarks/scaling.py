"""The driver at scale: workers that sleep, and studies of many trials.

    python -m benchmarks.scaling [--workers 1 8 32 64] [--seconds 0.05 0.5 5] [--trials 10000]

Sleeping: the driver's own loop (proposals, pruner, journal, tracker) against workers that only
sleep, so that all else is the driver's. A thread stands for each worker; a trial's eight chunks
are one message. Busy is the share of the workers' time in trials; at work is what the driver
computes, without waits for the disk or for a core. Then a study of many trials of 60 layers: the
driver's memory, the time of a proposal, the journal's size, and the time until the study is open
again.
"""

import argparse
import queue
import resource
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import optuna
from optuna.trial import FrozenTrial

import igq
from benchmarks.real import machine
from igq import Limits, Observation, Options
from igq.allocation import random_allocation
from igq.costs import bops_table
from pipeline.proposals import Proposals
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.samplers import WithinLimits
from pipeline.searching.driver import Driver, Plan
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Proposal
from pipeline.tracking import InMemoryTracker

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
CHUNKS = 8
MEASURED = 40
"""The surrogate's trials at the end of a study of many: the others are drawn at random."""


class Drawn(WithinLimits):
    """Draws allocations at random, as fast as can be."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(Encoding(limits), BudgetSchedule(limits.budget, limits.budget), 0)

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, generator: np.random.Generator
    ) -> igq.Allocation:
        return random_allocation(self.encoding.limits, generator)


def limits_of(depth: int) -> Limits:
    """Return the limits of a plain ViT: five layers a block."""
    layers = igq.layers(igq.create("vit_tiny_patch16_224", {"depth": depth}))
    return bops_table(layers, igq.Scheme.PAPER, Options((4,), (4,), GROUPS)).limit(uniform=8)


def proposals_of(folder: Path, limits: Limits) -> Proposals:
    """Open a study of the surrogate's."""
    schedule = BudgetSchedule(limits.budget, limits.budget)
    return Proposals(folder / "journal.log", "scaling", limits, schedule, [], Sampler.SURROGATE)


def observe(generator: np.random.Generator, images: int) -> Observation:
    """Return a chunk that looks like one."""
    kls = tuple(generator.lognormal(size=images).tolist())
    return Observation(kls, tuple(generator.lognormal(size=images).tolist()))


def sleeping(
    workers: int, seconds: float, trials: int, limits: Limits
) -> tuple[float, float, float]:
    """Run trials that sleep, with a message each.

    Returns:
        The share of time that workers slept; ms of the driver a trial, and of them at work.
    """
    generator = np.random.default_rng(0)
    done: queue.Queue[Proposal] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="igq-") as folder:
        driver = Driver(
            proposals_of(Path(folder), limits),
            InMemoryTracker(),
            Plan(trials, 8 * CHUNKS, limits.budget),
        )
        start, spent, running, work = perf_counter(), 0.0, 0, 0.0

        def send() -> bool:
            if (proposal := driver.next()) is None:
                return False
            threading.Timer(seconds, done.put, [proposal]).start()
            return True

        while running < workers and send():
            running += 1
        while running:
            ended = done.get()
            before, busy = perf_counter(), time.thread_time()
            for chunk in range(CHUNKS):
                if driver.report(ended.number, chunk, observe(generator, 8)):
                    break
            driver.finish(ended.number, seconds, None, "sleeping")
            running -= not send()
            spent += perf_counter() - before
            work += time.thread_time() - busy
        wall = perf_counter() - start
    share = trials * seconds / (wall * min(workers, trials))
    return share, 1e3 * spent / trials, 1e3 * work / trials


def many(trials: int, depth: int, images: int, limits: Limits) -> None:
    """Print what a study of many trials takes."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="igq-") as folder:
        made = Path(folder)
        driver = Driver(
            proposals_of(made, limits), InMemoryTracker(), Plan(trials, images, limits.budget)
        )
        asked, told = [], []
        study = driver._proposals._study
        surrogate, study.sampler = study.sampler, Drawn(limits)
        for number in range(trials):
            if number == trials - MEASURED:
                study.sampler = surrogate
            start = perf_counter()
            proposal = driver.next()
            asked.append(perf_counter() - start)
            if proposal is None:
                break
            for chunk in range(CHUNKS):
                driver.report(proposal.number, chunk, observe(generator, images // CHUNKS))
            driver.finish(proposal.number, 0.1, None, "one")
            told.append(perf_counter() - start - asked[-1])
        size = (made / "journal.log").stat().st_size
        start, cpu = perf_counter(), time.process_time()
        again = proposals_of(made, limits)
        ended = len(again.ended())
        again.ask()
        opened, opened_cpu = perf_counter() - start, time.process_time() - cpu
    assert ended == trials
    last = slice(-MEASURED + 1, None)  # the first one reads all trials
    print(f"\n| {trials} trials of {len(limits.names)} layers, {images} images | |\n|---|---|")
    print(f"| proposal at the end, median (most) | {1e3 * median(asked[last]):.0f} ms "
          f"({1e3 * max(asked[last]):.0f}) |")  # fmt: skip
    print(f"| reports and end of a trial, median | {1e3 * median(told[last]):.0f} ms |")
    print(f"| journal | {size / 1e6:.0f} MB, {size / trials / 1e3:.1f} kB a trial |")
    print(f"| opened again, with the first proposal | {opened:.1f} s ({opened_cpu:.1f} s CPU) |")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| memory of the driver, both studies open | {most:.2f} GiB |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.05, 0.5, 5.0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=8, help="trials of each sleeping worker")
    parser.add_argument("--depth", type=int, default=12, help="blocks, of 5 layers each")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    limits = limits_of(options.depth)
    print(machine())
    print(
        "| workers | trial, s | busy | driver, ms a trial | of it at work |\n|---|---|---|---|---|"
    )
    for workers in options.workers:
        for seconds in options.seconds:
            busy, each, work = sleeping(workers, seconds, options.each * workers, limits)
            print(f"| {workers} | {seconds:g} | {busy:.0%} | {each:.1f} | {work:.1f} |", flush=True)
    many(options.trials, options.depth, options.images, limits)


if __name__ == "__main__":
    main()
