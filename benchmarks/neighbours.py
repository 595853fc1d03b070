"""Two searches side by side, beside one alone: threads that wait must not spin.

    python -m benchmarks.neighbours [--space demo] [--trials 24] [--workers 2] [--spin]

Each search is a command of its own, with Ray of its own. With `--spin` threads wait as OpenMP has
it by default. Two that share all cores fairly take twice the time of one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from time import perf_counter

from benchmarks.real import machine
from pipeline.threads import PATIENT

SPINNING = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}


def searches(count: int, options: argparse.Namespace) -> list[float]:
    """Run so many searches at once; return the seconds that each took."""
    settings = SPINNING if options.spin else PATIENT
    command = [sys.executable, "-m", "pipeline.cli", "search", options.space, "--no-rivals"]
    command += ["--trials", str(options.trials), "--workers", str(options.workers)]
    with tempfile.TemporaryDirectory(prefix="igq-") as folder:
        start = perf_counter()
        running = [
            subprocess.Popen(
                [*command, "--out", str(Path(folder) / str(number))],
                stdout=subprocess.DEVNULL,
                env=os.environ | settings,
            )
            for number in range(count)
        ]
        with ThreadPool(count) as pool:
            ended = pool.map(lambda one: (one.wait(), perf_counter() - start), running)
    failed = [code for code, _ in ended if code]
    if failed:
        raise SystemExit(f"a search ended with {failed[0]}")
    return [seconds for _, seconds in ended]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="demo")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spin", action="store_true", help="as OpenMP waits by default")
    options = parser.parse_args()
    print(f"{machine()}; {options.space}, {options.trials} trials, {options.workers} workers")
    print(f"threads that wait {'spin' if options.spin else 'sleep'}; load {os.getloadavg()[0]:.1f}")
    (alone,) = searches(1, options)
    both = searches(2, options)
    print("\n| searches | seconds | times one alone |\n|---|---|---|")
    print(f"| one | {alone:.0f} | 1.00 |")
    for number, seconds in enumerate(both, 1):
        print(f"| {number} of two | {seconds:.0f} | {seconds / alone:.2f} |")


if __name__ == "__main__":
    main()
