"""Seals of a study's files: each says whose it is and what it held when it was written.

`study.json` names the study and holds a digest of itself. Every other JSON file has a `seal` with
the name of the study, or of the cache entry, and a digest. A file that was edited, cut or taken
from another study is refused, never believed. A seal does not say who wrote a file.

Studies of before have no seals: they are read as they are, and sealed when they are resumed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igq.formats.integrity import (
    DamagedError,
    canonical_digest,
    check_sealed,
    file_entry,
    sealed,
)
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json

SCHEMA = 2
"""Of `study.json`; studies of before name none."""
STUDY = "study.json"
_SEAL = "seal"


def study_of(path: Path) -> Path | None:
    """Return the folder of the study that a file lies in, or None."""
    return next((f for f in path.parents[:2] if (f / STUDY).is_file()), None)


def name_of(path: Path) -> str | None:
    """Return the name of the study that a file lies in; None where it has no seals.

    Raises:
        StudyError: its definition is damaged.
    """
    folder = study_of(path)
    return None if folder is None else read_definition(folder).get("id")


def read_definition(folder: Path) -> dict[str, Any]:
    """Return the content of a study's `study.json`.

    Raises:
        StudyError: there is none, or it is not as it was written.
    """
    content = _read(folder / STUDY)
    if "schema" in content or "digest" in content or "id" in content:
        try:
            check_sealed(STUDY, content)
            if content.get("schema") != SCHEMA or not isinstance(content.get("id"), str):
                raise DamagedError(STUDY, f"it must be of schema {SCHEMA}, but is not")
        except DamagedError as error:
            raise damaged(folder / STUDY, error) from None
    return content


def write_definition(folder: Path, key: str, content: Mapping[str, Any], nonce: str) -> None:
    """Write a study's `study.json`; a study of the same key keeps its name.

    Raises:
        StudyError: the folder cannot be written.
    """
    known = name_of(folder / STUDY)
    name = known if known is not None and known.startswith(f"{key}-") else f"{key}-{nonce}"
    write_json(folder / STUDY, sealed({"schema": SCHEMA, "id": name, "key": key, **content}))


def write_sealed(path: Path, content: Mapping[str, Any], entry: str | None = None) -> None:
    """Write JSON with the seal of the study that it lies in, or of a cache entry.

    Raises:
        StudyError: the folder cannot be written, or the study's definition is damaged.
    """
    of = entry or name_of(path) or ""
    write_json(path, {**content, _SEAL: {"of": of, "digest": canonical_digest(content)}})


def read_sealed(path: Path, entry: str | None = None, required: bool = False) -> dict[str, Any]:
    """Return the content of a JSON file that is as its study, or cache entry, wrote it.

    Files of studies of before may have no seal, unless it is `required`.

    Raises:
        StudyError: it is missing, damaged, edited, or another study's.
    """
    content, name = _read(path), name_of(path)
    seal = content.pop(_SEAL, None)
    if seal is None and name is None and not required:
        return content
    check_seal(path, seal, canonical_digest(content), entry or name)
    return content


def check_seal(path: Path, seal: Any, digest: str, of: str | None) -> None:
    """Refuse a seal that is none, has another digest, or is another study's or entry's.

    `of` is None where that is not known.

    Raises:
        StudyError: it is.
    """
    if not isinstance(seal, Mapping) or seal.keys() != {"of", "digest"}:
        raise damaged(path, "it has no seal")
    if seal["digest"] != digest:
        raise damaged(path, "its content is not that of its digest")
    if of is not None and seal["of"] != of:
        raise damaged(path, f"it is of {seal['of']!s:.80}, not of {of}")


def companions(paths: list[Path]) -> dict[str, str | None]:
    """Return the SHA-256 of files by name; None for one that there is not, or that is no file."""
    return {path.name: file_entry(path)["sha256"] if path.is_file() else None for path in paths}


def check_companions(path: Path, noted: Any) -> None:
    """Refuse files that are not those which a file was written beside.

    A fault within one of them is named first.

    Raises:
        StudyError: one was changed, removed or added.
    """
    if not isinstance(noted, Mapping):
        raise damaged(path, "it does not say which files it was written with")
    for name, digest in noted.items():
        beside = path.parent / str(name)
        if digest is None and beside.is_file():
            raise damaged(beside, f"there was none when {path.name} was written")
        if digest is None:
            continue
        read_sealed(beside)
        if file_entry(beside)["sha256"] != digest:
            raise damaged(beside, f"it is not the one that {path.name} was written with")


def damaged(path: Path, reason: object) -> StudyError:
    """Return the error for a file that is not as it was written."""
    advice = "restore it from a copy, or start a new study with another --out"
    if path.name not in (STUDY, "journal.log", "journal.json"):
        advice = "resume the search, which writes it again"
    return StudyError(f"{path} must be as it was written, but {reason}: {advice}.")


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        StudyError: there is no such file, or it holds none.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise damaged(path, "it holds no object")
    return content
