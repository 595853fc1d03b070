"""The folder that holds a study, and the one driver that may have it open."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EACCES, ENOTDIR
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from pipeline.errors import StudyError
from pipeline.files import read_json


@dataclass(frozen=True)
class Folder:
    """The paths of a study's parts."""

    path: Path

    @property
    def study(self) -> Path:
        """The definition of the study; written once, compared when it is resumed."""
        return self.path / "study.json"

    @property
    def journal(self) -> Path:
        """Optuna's journal: every trial."""
        return self.path / "journal.log"

    @property
    def lock(self) -> Path:
        """Held by the one driver that has the study open."""
        return self.path / ".lock"

    @property
    def cache(self) -> Path:
        """Results that are computed once: candidates, weights, sensitivities."""
        return self.path / "cache"

    @property
    def result(self) -> Path:
        """The comparison at the end, and the best allocation."""
        return self.path / "result.json"

    @property
    def final(self) -> Path:
        """The KL of the finalists on the final images."""
        return self.path / "final.json"

    @property
    def validation(self) -> Path:
        """The KL of every contender on every validation image."""
        return self.path / "validation.json"

    @property
    def tracking(self) -> Path:
        """Where the trials are tracked, without passwords."""
        return self.path / "tracking.json"

    @property
    def driver(self) -> Path:
        """The process that drives the search, or drove it last."""
        return self.path / "driver.json"

    @property
    def system(self) -> Path:
        """The machine and the source that the search ran on last."""
        return self.path / "system.json"

    @property
    def figures(self) -> Path:
        """The result as pictures, and the numbers that they show."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The result as one page."""
        return self.path / "report.html"


def check_folder(folder: Folder, resume: bool) -> None:
    """Refuse a folder that cannot be started in, before any work; none is made.

    Raises:
        StudyError: it holds a study and `resume` was not asked for, or holds none and it was,
            or cannot be written.
    """
    if resume:
        read_json(folder.study)
    elif folder.study.exists():
        raise StudyError(
            f"`out` must not hold a study yet, but {folder.path} does: continue it with --resume, "
            "or choose another --out."
        )
    there = next(p for p in (folder.path, *folder.path.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise unwritable(folder, ENOTDIR)
    if not os.access(there, os.W_OK | os.X_OK):
        raise unwritable(folder, EACCES)


def check_unlocked(folder: Folder) -> None:
    """Refuse a folder that another process has open.

    Raises:
        StudyError: there is a second driver.
    """
    if folder.lock.exists():
        _locked(folder).release()


@contextmanager
def exclusive(folder: Folder, resume: bool) -> Iterator[None]:
    """Hold the study's folder; folders made here go again if they hold no study in the end.

    Raises:
        StudyError: another process holds it, or it cannot be started in.
    """
    missing = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        lock = _locked(folder)
    except StudyError:
        _remove(missing)
        raise
    try:
        check_folder(folder, resume)  # there may be one since it was checked first
        yield
    finally:
        if not folder.study.exists():
            folder.lock.unlink(missing_ok=True)
            _remove(missing)
        lock.release()


def unwritable(folder: Folder, reason: int) -> StudyError:
    """Return the error for a folder that cannot be written, by the system's errno."""
    return StudyError(
        f"`out` must be a folder that can be written, but {folder.path} is not: "
        f"{os.strerror(reason)}."
    )


def _locked(folder: Folder) -> BaseFileLock:
    lock = FileLock(folder.lock, timeout=0)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StudyError(
            f"a study must have one driver, but another process has {folder.path} open."
        ) from None
    except OSError as error:
        raise unwritable(folder, error.errno or EACCES) from error
    return lock


def _remove(folders: Iterable[Path]) -> None:
    """Remove the folders that are there, innermost first, up to one that holds something."""
    with suppress(OSError):
        for path in folders:
            if path.exists():
                path.rmdir()
