"""Draws of images that a search made before: their files are known, and most need no reading.

A draw reads every image for the hash of its pixels. Where each image is a file of its own, the
places and hashes are shared, with the path, size and time of every file that was looked at: as long
as those are the same, the next search reads the images that it keeps in memory, and no others.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from igq.progress import Progress, silent
from pipeline.data import Fingerprint, Images, ImageSource, Preprocessing, Stream, draw
from pipeline.data.draw import shuffled
from pipeline.errors import StudyError
from pipeline.preparation.parts.shared import share, shared_file
from pipeline.study.definition import digest
from pipeline.study.seals import read_sealed, write_sealed

READERS = ("pillow", "timm", "torch", "torchvision")
"""The packages that pixels depend on."""

Wanted = Mapping[str, tuple[ImageSource, int, int]]


def draw_again(
    wanted: Wanted,
    seed: int,
    how: Preprocessing,
    folder: Path | None,
    progress: Progress = silent,
    streamed: Collection[str] = (),
) -> dict[str, Images]:
    """Draw as `pipeline.data.draw` does; files that were drawn before are not all read again.

    `folder` is that of shared results; None: nothing is remembered.

    Raises:
        DataError: a source holds too few images, or one that cannot be read.
    """
    sources = {source.name: source for source, _, _ in wanted.values()}
    if folder is None or any(source.files is None for source in sources.values()):
        return draw(wanted, seed, progress, streamed)
    name = _name(wanted, seed, how)
    with suppress(StudyError, KeyError, IndexError, TypeError, OSError, ValueError):
        known = read_sealed(shared_file(folder, f"{name}.json"), name, required=True)
        same = known["files"] == _files(wanted, known["places"], seed)
        if same and (found := _recalled(wanted, known, streamed)):
            return found
    drawn = draw(wanted, seed, progress, streamed)
    places = {purpose: list(map(int, images.places)) for purpose, images in drawn.items()}
    content = {
        "places": places,
        "fingerprints": {purpose: images.fingerprint for purpose, images in drawn.items()},
        "files": _files(wanted, places, seed),
    }
    what = f"images drawn from {' and '.join(sorted(sources))}"
    share(folder, f"{name}.json", what, lambda draft: write_sealed(draft, content, name))
    return drawn


def _name(wanted: Wanted, seed: int, how: Preprocessing) -> str:
    """Return a name with a hash of all that a draw follows from, but for the files' content."""
    asked = [[p, os.path.abspath(s.name), s.size, *most] for p, (s, *most) in wanted.items()]
    return f"draw_{digest([asked, seed, asdict(how), [version(one) for one in READERS]])}"


def _files(wanted: Wanted, places: Mapping[str, list[int]], seed: int) -> dict[str, str]:
    """Return source -> hash of path, size and time of each file up to the last that was drawn."""
    drawn: dict[str, set[int]] = {}
    for purpose, (source, _, _) in wanted.items():
        drawn.setdefault(source.name, set()).update(places[purpose])
    sources = {source.name: source for source, _, _ in wanted.values()}
    return {name: _state(source, drawn[name], seed) for name, source in sources.items()}


def _state(source: ImageSource, drawn: Collection[int], seed: int) -> str:
    assert source.files is not None
    order, content = shuffled(source, seed).tolist(), hashlib.sha256()
    until = max((at for at, place in enumerate(order) if place in drawn), default=-1)
    for place in order[: until + 1]:
        path, label = source.files[place]
        seen = path.stat()
        line = f"{path.absolute()} {label} {seen.st_size} {seen.st_mtime_ns}\n"
        content.update(line.encode(errors="surrogateescape"))
    return content.hexdigest()


def _recalled(
    wanted: Wanted, known: Mapping[str, Any], streamed: Collection[str]
) -> dict[str, Images] | None:
    """Return the images of a known draw; None where one that is kept in memory is another now."""
    drawn = {}
    for purpose, (source, _, _) in wanted.items():
        places, noted = known["places"][purpose], known["fingerprints"][purpose]
        stream = Stream(source, places)
        values = stream if purpose in streamed else _read(stream, noted)
        if values is None:
            return None
        assert source.files is not None
        labels = torch.tensor([source.files[place][1] for place in places]).long()
        drawn[purpose] = Images(
            source.name, values, labels if source.labelled else None, noted, places
        )
    return drawn


def _read(stream: Stream, noted: str) -> torch.Tensor | None:
    values = [unit.values.clone() for unit in stream.units()]
    joined = torch.cat(values) if values else torch.empty(0, 1, 1, 1)
    fingerprint = Fingerprint()
    fingerprint.add(joined)
    return joined if fingerprint.text == noted else None
