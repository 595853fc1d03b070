"""Images drawn for several purposes, none for two of them."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from igq.progress import Progress, silent
from pipeline.data.images import Images
from pipeline.data.sources import ImageSource
from pipeline.data.stream import Fingerprint, Stream, raw
from pipeline.errors import DataError

KEPT = 2**28
"""Bytes of images of one purpose above which they are read again when needed (our choice)."""


def draw(
    wanted: Mapping[str, tuple[ImageSource, int, int]],
    seed: int,
    progress: Progress = silent,
    streamed: Collection[str] = (),
) -> dict[str, Images]:
    """Draw images for each purpose, no image for two of them: purpose -> (source, least, most).

    Purposes are served in order from a seeded shuffle of their source. An image that was drawn
    before, in whatever file, is passed over. The images of purposes in `streamed` are not kept in
    memory where they are many.

    Raises:
        DataError: a source holds too few images, or one that cannot be read.
    """
    orders: dict[str, _Order] = {}
    seen: set[bytes] = set()
    total = sum(min(most, source.size) for source, _, most in wanted.values())

    def tell() -> None:
        progress(min(1.0, len(seen) / total))

    drawn = {}
    for purpose, (source, least, most) in wanted.items():
        if source.name not in orders:
            orders[source.name] = _Order(shuffled(source, seed))
        taken = _Taken(source, KEPT if purpose in streamed else None)
        while len(taken.places) < most and len(few := orders[source.name].next(most - len(taken))):
            _read(Stream(source, few), taken, seen, tell)
        if len(taken) < least:
            raise _too_few(source, purpose, least, len(taken))
        drawn[purpose] = taken.images()
    return drawn


def shuffled(source: ImageSource, seed: int) -> np.ndarray:
    """Return the places of a source in the order in which they are drawn."""
    return np.random.default_rng(seed).permutation(source.size)


def drawn_counts(wanted: Mapping[str, tuple[ImageSource, int, int]]) -> dict[str, int]:
    """Return how many images `draw` finds for each purpose, if none is there twice.

    Raises:
        DataError: a source holds too few images.
    """
    left = {source.name: source.size for source, _, _ in wanted.values()}
    counts = {}
    for purpose, (source, least, most) in wanted.items():
        counts[purpose] = min(most, left[source.name])
        left[source.name] -= counts[purpose]
        if counts[purpose] < least:
            raise _too_few(source, purpose, least, counts[purpose])
    return counts


def load_all(source: ImageSource, progress: Progress = silent) -> Images:
    """Return every image of a source in memory, in its own order.

    Raises:
        DataError: an image cannot be read.
    """
    taken = _Taken(source, None)
    for unit in Stream(source, range(source.size)).units():
        labels = [-1] * len(unit) if unit.labels is None else unit.labels.tolist()
        for image, label in zip(unit.values, labels, strict=True):
            taken.add(len(taken), image, label)
        progress(len(taken) / source.size)
    return taken.images()


@dataclass
class _Order:
    """A shuffled source, and how much of it was handed out."""

    places: np.ndarray
    used: int = 0

    def next(self, count: int) -> list[int]:
        self.used += count
        return list(map(int, self.places[self.used - count : self.used]))


@dataclass
class _Taken:
    """The images taken for one purpose so far."""

    source: ImageSource
    most_kept: int | None
    places: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    values: list[Tensor] | None = field(default_factory=list)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: int, image: Tensor, label: int) -> None:
        self.places.append(place)
        self.labels.append(label)
        self.fingerprint.add(image)
        if self.values is not None:
            self.values.append(image.clone())  # its unit is in memory that a worker shares
            if self.most_kept is not None and len(self) * image.nbytes > self.most_kept:
                self.values = None

    def images(self) -> Images:
        values: Tensor | Stream
        if self.values is None:
            values = Stream(self.source, self.places)
        else:
            values = torch.stack(self.values) if self.values else torch.empty(0, 1, 1, 1)
        labels = torch.tensor(self.labels).long() if self.source.labelled else None
        return Images(self.source.name, values, labels, self.fingerprint.text, self.places)


def _read(stream: Stream, taken: _Taken, seen: set[bytes], tell: Callable[[], None]) -> None:
    """Read images, and take those whose content was not seen before."""
    at = 0
    for unit in stream.units():
        places = stream.places[at : at + len(unit)]
        labels = [-1] * len(unit) if unit.labels is None else unit.labels.tolist()
        at += len(unit)
        for image, label, place in zip(unit.values, labels, places, strict=True):
            content = hashlib.sha256(raw(image)).digest()
            if content not in seen:
                seen.add(content)
                taken.add(place, image, label)
        tell()


def _too_few(source: ImageSource, purpose: str, least: int, held: int) -> DataError:
    return DataError(
        f"{source.name} must hold at least {least} images for {purpose} that no other "
        f"purpose has taken, but holds {held}."
    )
