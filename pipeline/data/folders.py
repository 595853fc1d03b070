"""The images in a folder, by the ending of their names; what is passed over is counted."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from sys import intern

from PIL import Image

NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
"""Formats that PIL hands to another program, or cannot read the pixels of."""
_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Listing:
    """The images in a folder and the folders below it, in natural order of their paths."""

    root: Path
    files: tuple[str, ...]
    """Paths as text: a `Path` for each of a million files is a gigabyte."""
    passed_over: tuple[str, ...]
    """One sentence for each kind of file that is not an image of the listing."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The name of the folder that each image lies in; "" for the root itself."""
        paths = [os.path.dirname(file) for file in self.files]
        names = {path: os.path.basename(path) for path in set(paths)}
        names[os.path.dirname(self.root / "file")] = ""
        return tuple(names[path] for path in paths)


def list_images(root: Path) -> Listing:
    """List the images in a folder; hidden files and folders are passed over.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("10.png", "9.TIF", "labels.csv"):
    ...         Path(folder, name).touch()
    ...     listing = list_images(Path(folder))
    >>> [Path(file).name for file in listing.files], listing.passed_over
    (['9.TIF', '10.png'], ('Passed over, as no images that can be read: 1 .csv.',))
    """
    endings = formats().keys()
    files, others, hidden = [], Counter[str](), 0
    for folder, names in _walk(root):
        inside = os.path.relpath(folder, root)
        hides = inside != "." and any(part.startswith(".") for part in inside.split(os.sep))
        before = str(Path(folder, "name")).removesuffix("name")
        for name in names:
            ending = os.path.splitext(name)[1].lower()
            if hides or name.startswith("."):
                hidden += ending in endings
            elif ending in endings:
                files.append(before + name)
            else:
                others[ending.rstrip(".") or "without ending"] += 1
    files.sort(key=lambda path: (natural(path), path))
    said = []
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        said.append(f"Passed over, as no images that can be read: {kinds}.")
    if hidden:
        images = "image" if hidden == 1 else "images"
        said.append(f"Passed over, as in hidden files or folders: {hidden} {images}.")
    return Listing(root, tuple(files), tuple(said))


@cache
def formats() -> dict[str, str]:
    """Return the ending of each format that PIL reads by itself: `.png` -> PNG."""
    Image.init()
    registered = Image.registered_extensions().items()
    return {end: kind for end, kind in registered if kind in Image.OPEN and kind not in NOT_READ}


def natural(text: str) -> tuple[int | str, ...]:
    """Return a key that sorts numbers within names by their value: 2 before 10.

    >>> sorted(["10", "2", "1"], key=natural)
    ['1', '2', '10']
    """
    parts = _NUMBERS.split(text.lower())
    return tuple(int(part) if place % 2 else intern(part) for place, part in enumerate(parts))


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder below another with the files in it; follow links, enter none twice."""
    entered = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            below.clear()
            continue
        entered.add(real)
        yield folder, names
