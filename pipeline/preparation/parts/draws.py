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
from pipeline.preparation.parts.shared import Results
from pipeline.study.definition import digest
from pipeline.study.seals import read_sealed, write_sealed

READERS = ("pillow", "timm", "torch", "torchvision")
"""The packages that pixels depend on."""

Sources = Mapping[str, tuple[ImageSource, int, int]]


def draw_shared(
    wanted: Sources,
    seed: int,
    how: Preprocessing,
    results: Results,
    progress: Progress = silent,
    streamed: Collection[str] = (),
) -> dict[str, Images]:
    """Draw as `pipeline.data.draw` does; a draw that `results` share is not read again as a whole.

    Raises:
        DataError: a source holds too few images, or one that cannot be read.
    """
    sources = {source.name: source for source, _, _ in wanted.values()}
    name = _name(wanted, seed, how)
    path = results.shared(f"{name}.json")
    if path is None or any(source.files is None for source in sources.values()):
        return draw(wanted, seed, progress, streamed)
    with suppress(StudyError, KeyError, IndexError, TypeError, OSError, ValueError):
        known = read_sealed(path, name, required=True)
        same = known["files"] == _files(wanted, known["places"], seed)
        if same and (found := _recalled(wanted, known, streamed)):
            results.note(name)
            return found
    drawn = draw(wanted, seed, progress, streamed)
    places = {purpose: list(map(int, images.places)) for purpose, images in drawn.items()}

    def write(draft: Path) -> None:
        fingerprints = {purpose: images.fingerprint for purpose, images in drawn.items()}
        files = _files(wanted, places, seed)
        content = {"places": places, "fingerprints": fingerprints, "files": files}
        write_sealed(draft, content, name)

    results.share(path.name, f"images drawn from {' and '.join(sorted(sources))}", write)
    return drawn


def _name(wanted: Sources, seed: int, how: Preprocessing) -> str:
    """Return a name with a hash of all that a draw follows from, but for the files' content."""
    asked = [[p, os.path.abspath(s.name), s.size, *most] for p, (s, *most) in wanted.items()]
    return f"draw_{digest([asked, seed, asdict(how), [version(one) for one in READERS]])}"


def _files(wanted: Sources, places: Mapping[str, list[int]], seed: int) -> dict[str, str]:
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
        file, label = source.files[place]
        seen = os.stat(file)
        line = f"{Path(file).absolute()} {label} {seen.st_size} {seen.st_mtime_ns}\n"
        content.update(line.encode(errors="surrogateescape"))
    return content.hexdigest()


def _recalled(
    wanted: Sources, known: Mapping[str, Any], streamed: Collection[str]
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
