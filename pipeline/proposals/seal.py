"""The journal's seal: how much of it is noted, with a digest, beside it in `journal.json`.

The seal is renewed when a trial has ended. A driver that dies leaves lines behind the sealed part;
they are of trials that have not ended, and are dropped when the study is resumed. A journal that
does not begin with its sealed part was edited, cut, or taken from another study, and is refused.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from pipeline.study.seals import damaged, name_of, read_sealed, write_sealed

MOST_BYTES = 1 << 30
"""The largest journal that is read (our choice): some ten times one of 10,000 trials."""
_CHUNK = 1 << 20


class JournalSeal:
    """Writes the seal of a journal that grows; only what was added is read again."""

    def __init__(self, journal: Path, study: str | None = None) -> None:
        self._journal, self._study = journal, study
        self._bytes, self._hash = 0, hashlib.sha256()

    def renew(self) -> None:
        """Seal everything that the journal holds now.

        Raises:
            StudyError: the folder cannot be written.
        """
        if self._journal.exists():
            with self._journal.open("rb") as file:
                file.seek(self._bytes)
                while chunk := file.read(_CHUNK):
                    self._bytes += len(chunk)
                    self._hash.update(chunk)
        if self._study is None:
            self._study = name_of(self._journal)
        noted = {"bytes": self._bytes, "sha256": self._hash.hexdigest()}
        write_sealed(seal_of(self._journal), noted, self._study)


class ReadOnly(BaseJournalBackend):
    """A journal in memory, to read a study from."""

    def __init__(self, content: bytes) -> None:
        self._lines = content.splitlines()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the operations from a line on."""
        for line in self._lines[log_number_from:]:
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse: the study is only read."""
        raise PermissionError("a journal that is only read must not be written")


def seal_of(journal: Path) -> Path:
    """Return the path of a journal's seal."""
    return journal.with_suffix(".json")


def sealed_part(journal: Path) -> bytes:
    """Return the part of a journal that counts: what its seal covers.

    Of a study of before, which has no seal, these are all whole lines.

    Raises:
        StudyError: the journal is not the one that was sealed, or its seal is missing.
    """
    seal = seal_of(journal)
    noted = read_sealed(seal) if seal.exists() else None  # first: a running search writes it last
    if noted is None:
        if name_of(journal) is not None and journal.exists():
            raise damaged(seal, "there is no such file")
        return whole_lines(journal)
    held, size, digest = _size(journal), noted.get("bytes"), noted.get("sha256")
    if not isinstance(size, int) or not 0 <= size <= held:
        raise damaged(journal, f"it has {held} bytes of {size}")
    content = _first(journal, size)
    if hashlib.sha256(content).hexdigest() != digest:
        raise damaged(journal, "its content is not that of its digest")
    return content


def whole_lines(journal: Path) -> bytes:
    """Return a journal without the line that a driver is writing, or died over.

    Raises:
        StudyError: the journal is larger than any that is read.
    """
    content = _first(journal, _size(journal))
    return content[: content.rfind(b"\n") + 1]


def seal_journal(journal: Path, study: str) -> None:
    """Seal a journal of before for the study of this name; a line that is not whole is dropped.

    Raises:
        StudyError: the folder cannot be written.
    """
    kept = sealed_part(journal)
    with journal.open("r+b") as file:
        file.truncate(len(kept))
    JournalSeal(journal, study).renew()


def reopen(journal: Path) -> None:
    """Drop the lines that a dead driver left behind the sealed part; seal a new journal.

    Raises:
        StudyError: the journal is not the one that was sealed, or the folder cannot be written.
    """
    kept = sealed_part(journal)
    if journal.exists():
        with journal.open("r+b") as file:
            file.truncate(len(kept))
    elif not seal_of(journal).exists():
        JournalSeal(journal).renew()


def _size(journal: Path) -> int:
    """Return the bytes of a journal; none where it is no file."""
    return journal.stat().st_size if journal.is_file() else 0


def _first(journal: Path, size: int) -> bytes:
    """Return the first bytes of a journal.

    Raises:
        StudyError: they are more than are read of any.
    """
    if size > MOST_BYTES:
        raise damaged(journal, f"it has {size} bytes, of at most {MOST_BYTES}")
    if not size:
        return b""
    with journal.open("rb") as file:
        return file.read(size)
