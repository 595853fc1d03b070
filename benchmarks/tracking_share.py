"""Measure the share of a search's time that MLflow takes, by the clock.

    python -m benchmarks.tracking_share [--rounds 3] [--trials 64] [--far 0.2]

The same search of the demo, each in a process of its own, as a user starts it: with a tracker in
memory, with MLflow in SQLite, and with an MLflow server each of whose requests takes longer. Rounds
alternate, and each begins with another tracker. Time is that of the whole process: it includes
loading MLflow, calibration, the trials, rivals, validation, figures, and the last write. The part
for which the search waited for its tracker is measured within the search: a machine that is busy
with other work stretches both alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter
from typing import Any

import pipeline
from benchmarks.real import machine
from benchmarks.tracking import server
from pipeline.study.progress import SilentDisplay
from pipeline.tracking import InMemoryTracker, Tracker, sqlite_uri

PLAIN = "memory"
ROOT = Path(__file__).resolve().parent.parent
CODE = "import sys; from benchmarks.tracking_share import alone; alone(*sys.argv[1:])"


class Timed:
    """A tracker that adds up the time for which a search waits for it."""

    def __init__(self, inner: Tracker) -> None:
        self._inner, self.seconds = inner, 0.0

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._inner, name)
        if not callable(part):
            return part

        def timed(*given: Any) -> None:
            begin = perf_counter()
            part(*given)
            self.seconds += perf_counter() - begin

        return timed


def alone(out: str, tracking: str, trials: str, whole: str) -> None:
    """Run a search in this process; print the seconds for which it waited for its tracker."""
    begin = perf_counter()
    tracker = InMemoryTracker() if tracking == PLAIN else pipeline.MlflowTracker(tracking)
    timed: Any = Timed(tracker)
    timed.seconds += perf_counter() - begin  # loading MLflow
    more = {"rivals": whole == "1", "figures": whole == "1"}
    wanted: Any = {"trials": int(trials), "workers": 1, "display": SilentDisplay(), **more}
    pipeline.search("demo", out, tracking=timed, **wanted)
    print(timed.seconds)


@dataclass(frozen=True)
class Taken:
    """The clock's and the processor's seconds of a search, and the machine's load before it."""

    wall: float
    waited: float
    """Seconds of the clock for which it waited for its tracker, loading it included."""
    processor: float
    load: float


def search(out: Path, tracking: str, trials: int, whole: bool) -> Taken:
    """Run a search in a process of its own, which shares no results with another."""
    load, before, begin = os.getloadavg()[0], getrusage(RUSAGE_CHILDREN), perf_counter()
    given = [str(out), tracking, str(trials), "1" if whole else "0"]
    environment = os.environ | {"IGQ_CACHE": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE, *given]
    run = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    wall, after = perf_counter() - begin, getrusage(RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, float(run.stdout.split()[-1]), used, load)


def measure(
    folder: Path, trackers: Mapping[str, str], options: argparse.Namespace
) -> dict[str, list[Taken]]:
    """Return what each tracker's searches took, round by round; print each."""
    taken: dict[str, list[Taken]] = {name: [] for name in trackers}
    names = list(trackers)
    for number in range(options.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            out = folder / f"{name.partition(',')[0]}{number}"
            uri = trackers[name] or sqlite_uri(out)
            one = search(out, uri, options.trials, options.whole)
            taken[name].append(one)
            print(f"| {number} | {name} | {one.wall:.1f} | {one.waited:.2f} | {one.processor:.1f} "
                  f"| {one.load:.1f} |", flush=True)  # fmt: skip
    return taken


def print_medians(taken: Mapping[str, Sequence[Taken]]) -> None:
    """Print the median of each tracker, and of its excess over none in the same round."""
    print("\n| tracker | search, s | waited | more by the clock | more of the processor |")
    print("|---|---|---|---|---|")
    for name, mine in taken.items():
        pairs = list(zip(mine, taken[PLAIN], strict=True))
        waited = median(one.waited / one.wall for one in mine)
        wall = median(one.wall / plain.wall - 1 for one, plain in pairs)
        used = median(one.processor / plain.processor - 1 for one, plain in pairs)
        print(
            f"| {name} | {median(one.wall for one in mine):.1f} | {waited:.1%} "
            f"| {wall:+.1%} | {used:+.1%} |"
        )


def main() -> None:
    """Print a table of all searches, and one of medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--far", type=float, default=0.2, help="seconds; 0 leaves the server out")
    parser.add_argument(
        "--trials-alone", dest="whole", action="store_false", help="no rivals, and no figures"
    )
    options = parser.parse_args()
    print(f"{machine()}; {options.trials} trials of the demo, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| round | tracker | search, s | waited, s | processor, s | load before |\n"
        "|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder, trackers = Path(name), {PLAIN: PLAIN, "SQLite": ""}
        if not options.far:
            return print_medians(measure(folder, trackers, options))
        (folder / "server").mkdir()
        with server(folder / "server", options.far) as proxy:
            trackers[f"server, {options.far:g} s a request"] = proxy.uri
            print_medians(measure(folder, trackers, options))
        print(f"\nRequests to the server: {proxy.requests}.")


if __name__ == "__main__":
    main()
