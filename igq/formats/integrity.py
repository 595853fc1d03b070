"""Files of an artifact: read within bounds, and compared with the digests that are noted of them.

A digest finds what was damaged or swapped. It does not say who wrote a file (docs/how-to/export).
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MOST_JSON_BYTES = 8 << 20
"""The largest JSON file that is read."""
MOST_DEPTH = 32
"""The most lists and objects that lie within one another."""
MOST_FILE_BYTES = 1 << 40
"""The largest size that a file may be noted to have."""
_CHUNK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class DamagedError(ValueError):
    """A file that is not what its writer wrote: the file, and the reason."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


def read_bytes(folder: Path, name: str, most: int = MOST_JSON_BYTES) -> bytes:
    """Return the content of a file that is no larger than `most` bytes.

    Raises:
        DamagedError: it is missing, a link, no file, too large, or cannot be read.
    """
    check_plain(folder, name)
    try:
        with (folder / name).open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DamagedError(name, f"it cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise DamagedError(name, f"it must have at most {most} bytes, but has more")
    return content


def read_json(folder: Path, name: str, most: int = MOST_JSON_BYTES) -> Any:
    """Return the content of a JSON file of bounded size and depth, without NaN or double keys.

    Raises:
        DamagedError: it is none.
    """
    try:
        text = read_bytes(folder, name, most).decode()
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except DamagedError:
        raise
    except RecursionError:
        raise DamagedError(name, f"it must be at most {MOST_DEPTH} deep, but is deeper") from None
    except ValueError as error:
        raise DamagedError(name, f"it must be JSON, but: {error}") from error
    check_json(name, content)
    return content


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file that holds an object; see `read_json`."""
    content = read_json(folder, name)
    if not isinstance(content, dict):
        raise DamagedError(name, f"it must hold an object, but holds a {type(content).__name__}")
    return content


def check_json(name: str, content: Any) -> None:
    """Refuse JSON that is too deep, or has a number that is not finite.

    Raises:
        DamagedError: it is, or has.
    """
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise DamagedError(name, f"it must be at most {MOST_DEPTH} deep, but is deeper")
        if not all(math.isfinite(value) for value in level if isinstance(value, float)):
            raise DamagedError(name, "its numbers must be finite, but one is not")
        lists = [v.values() if isinstance(v, dict) else v for v in level if _holds(v)]
        level = [inner for values in lists for inner in values]


def canonical_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data, whatever the order of its keys and its white space.

    >>> canonical_digest({"a": 1, "b": 2}) == canonical_digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of a file, as a manifest notes them."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": content.hexdigest()}


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the digest of its own content."""
    return {**content, "digest": canonical_digest(content)}


def check_sealed(name: str, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest whose content is not that of its digest.

    Raises:
        DamagedError: it was changed since it was written.
    """
    content = {key: value for key, value in manifest.items() if key != "digest"}
    if manifest.get("digest") != canonical_digest(content):
        raise DamagedError(name, "its content must be that of its digest, but was changed")


def check_files(folder: Path, manifest: str, files: Any, known: Iterable[str]) -> None:
    """Refuse files that are not those whose size and digest a manifest notes.

    Raises:
        DamagedError: an entry is odd or names no known file, or the file is missing or another.
    """
    known = list(known)
    if not isinstance(files, dict):
        raise DamagedError(manifest, "`files` must hold an entry for each file, but does not")
    for name, entry in files.items():
        if not _NAME.fullmatch(name) or name not in known:
            raise DamagedError(manifest, f"`files` must name {', '.join(known)}, but has {name!r}")
        _check_entry(manifest, name, entry)
        check_plain(folder, name)
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            raise DamagedError(name, f"it must have {entry['bytes']} bytes, but has {size}")
        if file_entry(folder / name) != entry:
            raise DamagedError(name, "its content must be that of its digest, but was changed")


def check_plain(folder: Path, name: str) -> None:
    """Refuse a file that is missing, a link, or no file.

    Raises:
        DamagedError: it is.
    """
    path = folder / name
    if path.is_symlink():
        raise DamagedError(name, "it must be a file of the folder, but is a link")
    if not path.exists():
        raise DamagedError(name, "there is no such file")
    if not path.is_file():
        raise DamagedError(name, "it must be a file, but is none")


def _check_entry(manifest: str, name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
        raise DamagedError(manifest, f"`files.{name}` must hold bytes and sha256, but does not")
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or not 0 <= size <= MOST_FILE_BYTES:
        raise DamagedError(manifest, f"`files.{name}.bytes` must be a size, but is {size!r:.40}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise DamagedError(manifest, f"`files.{name}.sha256` must be a digest, but is none")


def _holds(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
