"""The memory that loading and running something takes, in a process of its own."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

_STATUS = Path("/proc/self/status")


def peak_memory(
    load: Callable[[], Callable[[np.ndarray], Any]],
    batches: Sequence[np.ndarray],
    imports: Sequence[str] = (),
) -> list[float | None]:
    """Return by how many megabytes loading, and running each batch, raise a fresh process's peak.

    `load` must be picklable, and batches grow: a peak is that of all runs so far. The process
    imports the module of `load`, and `imports`, before it counts. None where the system does not
    tell: it is Linux's word.

    >>> from functools import partial
    >>> import operator
    >>> (peak,) = peak_memory(partial(operator.methodcaller, "sum"), [np.zeros((1, 3, 8, 8))])
    >>> peak is None or peak >= 0
    True
    """
    if not _STATUS.is_file():
        return [None] * len(batches)
    with TemporaryDirectory() as folder:  # not multiprocessing, which runs the main module again
        asked = Path(folder) / "asked"
        asked.write_bytes(pickle.dumps((load, list(batches), tuple(imports))))
        command = [sys.executable, "-m", __name__, str(asked)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: list[float | None] = json.loads(run.stdout.splitlines()[-1])
    return found


def _raised(
    load: Callable[[], Callable[[np.ndarray], Any]],
    batches: Sequence[np.ndarray],
    imports: Sequence[str],
) -> list[float]:
    for name in imports:
        import_module(name)
    before = _peak()
    run = load()
    found = []
    for images in batches:
        run(images)
        found.append(_peak() - before)
    return found


def _peak() -> float:
    """Return the process's peak, in megabytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as given:
        print(json.dumps(_raised(*pickle.load(given))))
