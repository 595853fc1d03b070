"""Images that are read whenever they are needed, by worker processes, and never all in memory.

Reading is torch's: a `DataLoader` whose items are units of a few images. An image that cannot be
read travels back as the error that names it.
"""

import hashlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.sources import ImageSource
from pipeline.errors import DataError

UNIT = 8
"""Images that a worker reads at once where a whole batch takes too much memory (our choice)."""
MEMORY = 2**27
"""Bytes of images that are read ahead, and those of a block for several models (our choice)."""
WORTH_WORKERS = 2**26
"""Bytes of images above which worker processes are started (our choice)."""
MOST_WORKERS = 16
SHARED = Path("/dev/shm")
"""Through which torch's workers hand tensors over."""


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring images of a set."""

    values: Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"] | None
    """Classes; None where the source does not tell."""

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> "Block":
        return Block(self.values[part], None if self.labels is None else self.labels[part])

    def __add__(self, other: "Block") -> "Block":
        labels = None
        if self.labels is not None and other.labels is not None:
            labels = torch.cat((self.labels, other.labels))
        return Block(torch.cat((self.values, other.values)), labels)


@dataclass(frozen=True, eq=False)
class Stream:
    """Images of a source, by their places in it, in a fixed order.

    >>> from pipeline.data import Preprocessing, open_source
    >>> digits = open_source("digits", Preprocessing({"input_size": (1, 8, 8)}, 10))
    >>> stream = Stream(digits, range(5))
    >>> len(stream), len(stream[1:3]), [len(block) for block in stream.blocks(3)]
    (5, 2, [3, 2])
    """

    source: ImageSource
    places: Sequence[int]
    workers: int | None = None
    """Processes that read; None: one for each core, or none where there is little to read."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, part: slice) -> "Stream":
        return Stream(self.source, self.places[part], self.workers)

    def blocks(self, batch_size: int, memory: int = 0) -> Iterator[Block]:
        """Yield all images, in blocks of whole batches that take `memory` bytes or a batch.

        Raises:
            DataError: an image cannot be read, or a process that reads was killed.
        """
        units = self.units(batch_size if self._holds(batch_size) else UNIT)
        return regrouped(_bundled(units, batch_size, memory), batch_size)

    def units(self, size: int = UNIT) -> Iterator[Block]:
        """Yield all images as they are read, `size` at a time.

        Raises:
            DataError: an image cannot be read, or a process that reads was killed.
        """
        if not self.places:
            return
        workers, ahead = self._workers_and_units_ahead(size)
        loader: DataLoader[Any] = DataLoader(
            _Units(self.source, self.places, size),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=ahead if workers else None,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # else torch's own generator moves on
        )
        for unit in _alive(loader):
            if isinstance(unit, DataError):
                raise unit
            yield unit

    def _holds(self, size: int) -> bool:
        """Return whether as many workers have memory for units of `size` images as for small ones.

        A batch that is read as one unit is not joined of several.
        """
        if size <= UNIT:
            return False
        return self._workers_and_units_ahead(size)[0] == self._workers_and_units_ahead(UNIT)[0]

    def _workers_and_units_ahead(self, size: int) -> tuple[int, int]:
        """Return how many processes read, and how many units each of them may be ahead."""
        each = size * self._image_bytes
        wanted = self.workers
        if wanted is None:
            enough = len(self.places) * self._image_bytes > WORTH_WORKERS
            wanted = min(_cores(), MOST_WORKERS) if enough else 0
        memory = min(MEMORY, shutil.disk_usage(SHARED).free // 2) if SHARED.is_dir() else 0
        workers = min(wanted, memory // max(1, 2 * each))
        if "fork" not in multiprocessing.get_all_start_methods():
            workers = 0  # an opened dataset cannot be sent to a new process
        return workers, max(2, memory // max(1, max(1, workers) * each))

    @cached_property
    def _image_bytes(self) -> int:
        return self.source.read(self.places[0])[0].nbytes if self.places else 0


class Fingerprint:
    """A hash of preprocessed values in their order, taken while they pass."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def of(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the blocks, and take them into the hash."""
        with ThreadPoolExecutor(1) as hasher:  # while the caller computes
            for block in blocks:
                added = hasher.submit(self.add, block.values)
                yield block
                added.result()

    def add(self, values: Tensor) -> None:
        """Take values into the hash."""
        self._hash.update(raw(values))

    @property
    def text(self) -> str:
        """The hash of all values so far, 16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def raw(values: Tensor) -> memoryview:
    """Return the bytes of values as they lie in memory, for a hash."""
    flat: Any = values.contiguous().numpy().reshape(-1)
    return memoryview(flat).cast("B")


def regrouped(blocks: Iterable[Block], batch_size: int) -> Iterator[Block]:
    """Yield the same images in blocks of whole batches; the last may end with a smaller one."""
    rest: Block | None = None
    for block in blocks:
        joined = block if rest is None else rest + block
        whole = len(joined) // batch_size * batch_size
        if whole:
            yield joined[:whole]
        rest = joined[whole:] if whole < len(joined) else None
    if rest is not None:
        yield rest


@dataclass(eq=False)
class _Units(Dataset[Any]):
    """A source as a dataset whose items are units of images."""

    source: ImageSource
    places: Sequence[int] = field(repr=False)
    size: int

    def __len__(self) -> int:
        return -(-len(self.places) // self.size)

    def __getitem__(self, number: int) -> "Block | DataError":
        places = self.places[number * self.size : (number + 1) * self.size]
        try:
            rows = [self.source.read(int(place)) for place in places]
        except DataError as error:
            return error
        labels = torch.tensor([label for _, label in rows]) if self.source.labelled else None
        return Block(torch.stack([values for values, _ in rows]), labels)


def _bundled(units: Iterable[Block], batch_size: int, memory: int) -> Iterator[Block]:
    """Yield neighbouring units as one block, of a batch or `memory` bytes at least."""
    held: list[Block] = []
    for unit in units:
        held.append(unit)
        if sum(map(len, held)) >= batch_size and sum(b.values.nbytes for b in held) >= memory:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    labels = [block.labels for block in blocks if block.labels is not None]
    values = torch.cat([block.values for block in blocks])
    return Block(values, torch.cat(labels) if len(labels) == len(blocks) else None)


def _alive(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield the items of a loader; a worker that was killed is an error of the images."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"processes that read images must not be killed, but one was: {error} Free some memory "
            "and try again."
        ) from error


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ignore Ctrl-C, which a terminal sends to every process: the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
