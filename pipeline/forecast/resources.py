"""The memory and disk that a search needs, estimated from sizes, beside what this machine has."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import igq
from igq import WeightMethod
from pipeline.cluster.placement import WorkerMemory
from pipeline.data.draw import KEPT
from pipeline.errors import StudyError
from pipeline.evaluation.objective import MEMORY
from pipeline.forecast.work import Work
from pipeline.preparation.costs.memory import Load, memory
from pipeline.preparation.prepare import CHUNKS
from pipeline.preparation.purposes import CALIBRATION, FINAL, SEARCH, VALIDATION
from pipeline.preparation.study import parameters_of
from search_spaces import SearchSpace

FLOAT = 4
"""Bytes of a value."""
GIGABYTE = 1e9
COPIES = 3
"""Models that a process holds: the given one, its weights' values, and the quantized one."""
A_TRIAL = 100
"""Bytes of a trial in the journal for each image and each layer (a rough figure)."""
TRACKED = 20_000
"""Bytes of a trial in MLflow's store (a rough figure)."""
MEMORY_FILE = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, in bytes."""
EMPTY_STORE = 1_000_000
"""Bytes of an empty one, with the figures (a rough figure)."""


@dataclass(frozen=True)
class Resources:
    """Bytes that a search needs, and those that are there; None where the system does not tell."""

    driver: int
    """Memory of this process."""
    worker: int
    """Memory of a worker that corrects weights, which takes the most."""
    further: int
    """Memory of each other worker."""
    memory_left: int | None
    """Memory that this process and new ones may take."""
    memory_there: int | None
    """All the memory of this machine, or of the container that this process may not leave."""
    disk: int
    """Bytes that the study's folder grows to."""
    disk_left: int | None
    corrections: int = 1
    """Workers that correct weights at once, at most."""

    @property
    def of_workers(self) -> WorkerMemory:
        """The memory of workers beside this process."""
        return WorkerMemory(self.further, self.worker, self.corrections)

    @property
    def for_workers(self) -> int | None:
        """Bytes for workers beside this process, enough for one: less was refused."""
        if self.memory_left is None:
            return None
        return max(self.memory_left - self.driver, self.worker)


def resources_of(work: Work, parameters: int, image_bytes: int, base: int) -> Resources:
    """Return what a search needs; `base` are the bytes of a process that has loaded its packages.

    `image_bytes` are those of one image as the model's input.
    """
    images, weights = work.images, FLOAT * parameters
    held = image_bytes * (images[CALIBRATION] + images[SEARCH])
    held += sum(min(KEPT, image_bytes * images[purpose]) for purpose in (VALIDATION, FINAL))
    activations = FLOAT * sum(layer.tokens * layer.channels for layer in work.layers)
    kept = min(MEMORY, activations * images[SEARCH] * work.request.num_trials)
    chunk = max(1, -(-images[SEARCH] // CHUNKS))
    bits = len(work.request.space.options.weight_bits)
    load = Load(images[SEARCH], images[CALIBRATION], image_bytes, chunk, bits)
    taken = memory(work.layers, parameters, load)
    corrects = work.request.space.weight_method is not WeightMethod.NEAREST
    further = max(taken.sensitivities, taken.trials)
    rivals = 2 * work.trials if work.rivals else 0
    journal = A_TRIAL * (images[SEARCH] + len(work.layers)) * (work.trials + rivals)
    codes = parameters * bits
    disk = codes + journal + TRACKED * work.trials + EMPTY_STORE
    return Resources(
        driver=base + COPIES * weights + held + kept,
        worker=taken.most if corrects else further,
        further=further,
        memory_left=memory_left(),
        memory_there=memory_there(),
        disk=disk,
        disk_left=disk_left(work.request.out),
        corrections=bits if corrects else 1,
    )


def check_model(space: SearchSpace) -> None:
    """Refuse a model whose copies this machine cannot hold, before any is made.

    Raises:
        StudyError: it has less memory than they take.
        UnsupportedModelError: timm has no such model, or it does not take these arguments.

    >>> import search_spaces
    >>> check_model(search_spaces.load("demo"))
    """
    with torch.device("meta"):
        parameters = parameters_of(igq.create(space.model.name, space.model.arguments))
    there, taken = memory_there(), memory_taken() + COPIES * FLOAT * parameters
    if there is not None and taken > there:
        raise StudyError(
            f"this machine must hold {COPIES} copies of {space.model.name}, which has "
            f"{parameters / 1e6:.0f} million parameters, and takes about {size_of(taken)} with "
            f"them, but has {size_of(there)}: take a smaller model, or a machine that has more."
        )


def check_memory(needed: Resources, workers: int) -> None:
    """Refuse a search that this machine cannot hold, with so many workers beside this process.

    Raises:
        StudyError: the machine has less memory than they take.

    >>> check_memory(Resources(10**9, 2 * 10**9, 10**9, None, 16 * 10**9, 0, None), workers=2)
    """
    there, memory = needed.memory_there, needed.of_workers
    if there is None or needed.driver + memory.of(workers) <= there:
        return
    room = memory.room(there - needed.driver, workers)
    first = "the first" if needed.corrections == 1 else f"each of the first {needed.corrections}"
    way = "take a smaller model or fewer images, or --cluster with machines that have more"
    raise StudyError(
        f"this machine must hold the search, which takes about {size_of(needed.driver)} and "
        f"{size_of(needed.worker)} for {first} of {workers} workers, {size_of(needed.further)} "
        f"for each other, but has {size_of(there)}: {f'take --workers {room}' if room else way}."
    )


def size_of(size: int) -> str:
    """Write a size in GB or MB.

    >>> size_of(2_340_000_000), size_of(4_200_000)
    ('2.3 GB', '4 MB')
    """
    return f"{size / GIGABYTE:.1f} GB" if size >= GIGABYTE else f"{size / 1e6:.0f} MB"


def memory_taken() -> int:
    """Return the bytes of this process; 0 where the system does not tell.

    >>> memory_taken() >= 0
    True
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_left() -> int | None:
    """Return the bytes that this process and new ones may take; None where nothing tells."""
    free, there = _told("MemAvailable:"), memory_there()
    return None if free is None or there is None else min(free + memory_taken(), there)


def memory_there() -> int | None:
    """Return the bytes that all processes may take; None where the system does not tell."""
    total = _told("MemTotal:")
    try:
        limit = int(LIMIT.read_text())
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return total
    return limit if total is None else min(limit, total)


def _told(name: str) -> int | None:
    try:
        lines = MEMORY_FILE.read_text().splitlines()
        found = next(line.split()[1] for line in lines if line.startswith(name))
    except (OSError, StopIteration, IndexError):
        return None
    return 1024 * int(found)


def disk_left(folder: Path) -> int | None:
    """Return the free bytes where a folder is, or will be; None where the system does not tell."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None
