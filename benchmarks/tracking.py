"""Measure the cost of tracking to a search: seconds, requests, rows and bytes.

    python -m benchmarks.tracking [--trials 500] [--depth 12]
    python -m benchmarks.tracking --trials 60 --far 0.2 --pace 1

The evaluator answers at once, or after `--pace` seconds, so that all else is Optuna's proposals,
its journal, and tracking. Each kind of tracker has the same search. `--far` starts an MLflow server
behind a proxy that adds so many seconds to each request.
"""

import argparse
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from urllib.request import urlopen

import numpy as np

import igq
from benchmarks.delayed import Delayed
from benchmarks.real import machine
from igq import Limits, Observation, Options
from igq.allocation import random_allocation
from igq.costs import bops_table
from pipeline.proposals import Proposals
from pipeline.searching.driver import Driver, Plan
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin
from pipeline.tracking import InMemoryTracker, StudyRun, Tracker, sqlite_uri
from pipeline.tracking.mlflow import MlflowTracker
from pipeline.tracking.server import WITHOUT_JOBS

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
IMAGES, CHUNKS = 64, 8
MEGABYTE = 1e6


@dataclass(frozen=True)
class Taken:
    """The time of a search, and the part of it after the last trial."""

    wall: float
    processor: float
    end: float


def search(tracker: Tracker, limits: Limits, trials: int, pace: float, folder: Path) -> Taken:
    """Run a search whose evaluator answers with random numbers."""
    generator = np.random.default_rng(0)
    first = [(Origin.RANDOM, random_allocation(limits, generator)) for _ in range(4)]
    schedule = BudgetSchedule(limits.budget, limits.budget)
    begin, used = perf_counter(), process_time()
    tracker.start(StudyRun("benchmark", "0abc", {"seed": 0}, limits.budget))
    proposals = Proposals(
        folder / "journal.log", "benchmark", limits, schedule, first, Sampler.LOCAL
    )
    driver = Driver(proposals, tracker, Plan(trials, IMAGES, limits.budget))
    while (proposal := driver.next()) is not None:
        time.sleep(pace)
        for chunk in range(CHUNKS):
            kls = tuple(generator.lognormal(size=IMAGES // CHUNKS).tolist())
            if driver.report(proposal.number, chunk, Observation(kls, kls)):
                break
        driver.finish(proposal.number, pace, node="here")
    last = perf_counter()
    tracker.finish({"kl": 1.0}, {"igq.best_trial": "0"}, {}, [])
    now = perf_counter()
    return Taken(now - begin, process_time() - used, now - last)


@contextmanager
def server(folder: Path, seconds: float) -> Iterator[Delayed]:
    """Start an MLflow server, and a proxy before it that adds seconds to each request."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_uri(folder)]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    without_jobs = os.environ | WITHOUT_JOBS
    running = subprocess.Popen(command, cwd=folder, env=without_jobs, **quiet)  # type: ignore[call-overload]
    proxy = Delayed(port, seconds)
    try:
        _wait(port)
        yield proxy
    finally:
        proxy.close()
        running.terminate()
        running.wait()


def _wait(port: int) -> None:
    for _ in range(600):
        with suppress(OSError):
            urlopen(f"http://127.0.0.1:{port}/health", timeout=60).close()
            return
        time.sleep(0.5)
    raise TimeoutError("MLflow's server did not start within five minutes")


def print_size(folder: Path, trials: int) -> None:
    """Print the rows and bytes of a SQLite store and of its artifacts."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        found = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        counts = {name: _rows(store, name) for (name,) in found}
    rows = {name: count for name, count in counts.items() if count > trials / 2}
    listed = ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
    artifacts = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in artifacts) / MEGABYTE
    store_size = (folder / "mlflow.db").stat().st_size / MEGABYTE
    print(f"\nStore: {sum(counts.values())} rows ({listed}), {store_size:.1f} MB; "
          f"{len(artifacts)} artifacts, {size:.2f} MB.")  # fmt: skip


def _rows(store: sqlite3.Connection, table: str) -> int:
    return int(store.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])


def print_row(name: str, taken: Taken, plain: Taken, trials: int) -> None:
    """Print a row: the time of a search, and how much longer it is than without tracking."""
    more = taken.wall - plain.wall
    print(
        f"| {name} | {taken.wall:.1f} | {taken.processor:.1f} | {taken.end:.1f} "
        f"| {1e3 * more / trials:.0f} | {more / plain.wall:+.1%} |",
        flush=True,
    )


def compare(folder: Path, limits: Limits, options: argparse.Namespace) -> None:
    """Print a row for each tracker, and the size of the store."""
    for part in ("memory", "sqlite", "server"):
        (folder / part).mkdir()
    wanted, trials = (limits, options.trials, options.pace), options.trials
    plain = search(InMemoryTracker(), *wanted, folder / "memory")
    print_row("memory", plain, plain, trials)
    store = folder / "sqlite"
    print_row("SQLite", search(MlflowTracker(sqlite_uri(store)), *wanted, store), plain, trials)
    if options.far is not None:
        with server(folder / "server", options.far) as proxy:
            far = search(MlflowTracker(proxy.uri), *wanted, folder / "server")
        print_row(f"server, {options.far:g} s a request", far, plain, trials)
        print(f"\nRequests: {proxy.requests}, {proxy.requests / trials:.1f} a trial.")
    print_size(store, trials)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--depth", type=int, default=12, help="blocks, of 5 layers each")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds of an evaluation")
    parser.add_argument("--far", type=float, help="seconds that a server's answer takes longer")
    options = parser.parse_args()
    layers = igq.layers(igq.create("vit_tiny_patch16_224", {"depth": options.depth}))
    limits = bops_table(layers, igq.Scheme.PAPER, Options((4,), (4,), GROUPS)).limit(uniform=8)
    print(f"{machine()}; {options.trials} trials of {len(limits.names)} layers, "
          f"{options.pace:g} s an evaluation")  # fmt: skip
    print("| tracker | search, s | processor, s | at its end, s | more a trial, ms | more |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), limits, options)


if __name__ == "__main__":
    main()
