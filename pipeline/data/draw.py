"""Images drawn for several purposes, none for two of them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from igq.progress import Progress, silent
from pipeline.data.images import Images
from pipeline.data.sources import ImageSource
from pipeline.errors import DataError


def draw(
    wanted: Mapping[str, tuple[ImageSource, int, int]],
    seed: int,
    progress: Progress = silent,
) -> dict[str, Images]:
    """Draw images for each purpose, no image for two of them: purpose -> (source, least, most).

    Purposes are served in order from a seeded shuffle of their source. An image that was drawn
    before, in whatever file, is passed over.

    Raises:
        DataError: a source holds too few images, or one that cannot be read.
    """
    orders: dict[str, Iterator[int]] = {}
    seen: set[bytes] = set()
    total = sum(min(most, source.size) for source, _, most in wanted.values())
    drawn = {}
    for purpose, (source, least, most) in wanted.items():
        shuffled = np.random.default_rng(seed).permutation(source.size).tolist()
        order = orders.setdefault(source.name, iter(shuffled))
        drawn[purpose] = _take(purpose, source, order, least, most, seen)
        progress(min(1.0, len(seen) / total))
    return drawn


def load_all(source: ImageSource, progress: Progress = silent) -> Images:
    """Return every image of a source, in its own order.

    Raises:
        DataError: an image cannot be read.
    """
    rows = []
    for index in range(source.size):
        rows.append(source.read(index))
        progress((index + 1) / source.size)
    return _images(source, rows)


def _take(
    purpose: str, source: ImageSource, order: Iterator[int], least: int, most: int, seen: set[bytes]
) -> Images:
    rows: list[tuple[Tensor, int]] = []
    while len(rows) < most and (index := next(order, None)) is not None:
        image, label = source.read(index)
        content = hashlib.sha256(image.numpy().tobytes()).digest()
        if content not in seen:
            seen.add(content)
            rows.append((image, label))
    if len(rows) < least:
        raise DataError(
            f"{source.name} must hold at least {least} images for {purpose} that no other purpose "
            f"has taken, but holds {len(rows)}."
        )
    return _images(source, rows)


def _images(source: ImageSource, rows: Sequence[tuple[Tensor, int]]) -> Images:
    values = torch.stack([image for image, _ in rows]) if rows else torch.empty(0, 1, 1, 1)
    labels = torch.tensor([label for _, label in rows]).long() if source.labelled else None
    fingerprint = hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]
    return Images(source.name, values, labels, fingerprint)
