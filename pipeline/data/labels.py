"""Labels of single images: a CSV or JSON file that has the class of each.

CSV has a path and a class in each row, after a row of headings or none. JSON has an object of paths
and classes, or a list of pairs. Paths are relative to the file's folder, or to another.
"""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.classes import Labelling, class_map
from pipeline.data.folders import formats
from pipeline.errors import DataError

LARGEST = 2**28
"""Bytes of the largest file of labels that is read (our choice)."""


@dataclass(frozen=True)
class Labels:
    """The images that a file lists, in its order, and the class of each as it is written there."""

    file: Path
    images: tuple[Path, ...]
    names: tuple[str, ...]

    def classes(self, labelling: Labelling) -> dict[str, int]:
        """Return name of a class -> class of the model.

        Raises:
            DataError: a name is none of the model's, or the names do not tell.
        """
        names = sorted(set(self.names))
        found = class_map(names, labelling)
        if found is None:
            raise DataError(
                f"{self.file} must name classes of the model, which has {labelling.num_classes}, "
                f"but names {len(names)} ({_few(names)}); --classes FILE says which is which."
            )
        if unknown := [name for name in names if name not in found]:
            raise DataError(
                f"{self.file} must name classes of the model alone, but has {_few(unknown)}."
            )
        return found


def read_labels(file: Path, root: Path) -> Labels:
    """Read the images that a file lists, whose paths are relative to `root`.

    Raises:
        DataError: the file cannot be read, a row is none, an image is listed twice, is not there or
            lies outside `root`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file, _ = Path(folder, "labels.csv"), Path(folder, "a.png").touch()
    ...     _ = file.write_text("a.png,cat")
    ...     read_labels(file, file.parent).names
    ('cat',)
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it must have at most {LARGEST} bytes")
        rows = _json_rows(file) if file.suffix.lower() == ".json" else _csv_rows(file)
    except OSError as error:
        raise DataError(f"{file} could not be read as labels: {error.strerror}.") from error
    except (ValueError, RecursionError, csv.Error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file} must have an image and its class in each row, but does not: {reason}."
        ) from error
    paths = [Path(os.path.normpath(root / written)) for written, _ in rows]
    _check_paths(file, root, paths)
    return Labels(file, tuple(paths), tuple(name for _, name in rows))


def _check_paths(file: Path, root: Path, paths: list[Path]) -> None:
    inside = Path(os.path.normpath(root))
    for path in paths:
        if not path.is_relative_to(inside):
            raise DataError(
                f"{file} must list images in {root}, but lists {path}; {file}:ROOT names another."
            )
    seen: set[Path] = set()
    for path in paths:
        if path in seen:
            raise DataError(f"{file} must list each image once, but lists {path} twice.")
        seen.add(path)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{file} must list images that are there, but {len(missing)} of {len(paths)} are not: "
            f"{_few(missing)}."
        )


def _csv_rows(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    rows = [row for row in csv.reader(lines, strict=True) if any(cell.strip() for cell in row)]
    if rows and Path(rows[0][0].strip()).suffix.lower() not in formats():
        rows = rows[1:]  # headings
    return [_pair(number, row) for number, row in enumerate(rows, start=1)]


def _json_rows(file: Path) -> list[tuple[str, str]]:
    content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    rows: Iterable[Any] = content
    if not isinstance(content, list):
        raise ValueError("it must hold an object or a list")
    if not isinstance(content, _Pairs):
        rows = (tuple(dict(row).values()) if isinstance(row, _Pairs) else row for row in content)
    return [_pair(number, row) for number, row in enumerate(rows, start=1)]


class _Pairs(list[Any]):
    """A JSON object as pairs, so that a key that stands twice is seen."""


def _pair(number: int, row: Any) -> tuple[str, str]:
    """Return a path and the name of a class.

    Raises:
        ValueError: it is none.
    """
    if isinstance(row, str | Mapping) or not hasattr(row, "__len__") or len(row) != 2:
        raise ValueError(f"row {number} must have two cells")
    path, name = row
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"row {number} must have the name or number of a class")
    if not isinstance(path, str) or not path.strip() or "\0" in path or not str(name).strip():
        raise ValueError(f"row {number} must have a path and a class")
    return path.strip(), str(name).strip()


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
