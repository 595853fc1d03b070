"""Results that studies share: computed once per model, scheme, images and seed.

Each entry is a folder named by what it follows from: the file itself, sealed, and `entry.json`,
which says what it is and which studies used it. Entries appear whole or not at all, and one that
is damaged is computed again. Two searches that need the same result at once compute it once.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.errors import StudyError
from pipeline.files import appearing, write_json
from pipeline.preparation.parts.cache import load_tensors
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.seals import read_sealed

RULES = 2
"""Raised where the same inputs give another result than before."""
ENTRY = "entry.json"
_USES = 50
"""Studies that an entry remembers, the last ones."""


@dataclass(frozen=True)
class Entry:
    """One result that studies share."""

    path: Path
    made_for: str
    made: float
    """Seconds since the epoch."""
    used_by: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(path.stat().st_size for path in self.path.iterdir())


@dataclass(frozen=True)
class Wanted:
    """A file of a study's cache, and what it is in words."""

    path: Path
    what: str


@dataclass(frozen=True)
class Results:
    """A study's results, shared with other studies through `folder`; None: with no other."""

    study: Path
    folder: Path | None = None
    display: Display = field(default_factory=SilentDisplay)

    def ensure(self, path: Path, what: str, compute: Callable[[], None]) -> None:
        """Have a file of the study's cache: as it lies there, as another study has it, or new.

        Raises:
            StudyError: a folder cannot be written.
        """
        self.ensure_all([Wanted(path, what)], lambda missing: compute())

    def ensure_all(
        self, every: Sequence[Wanted], compute: Callable[[Sequence[Path]], None]
    ) -> None:
        """Have several files, of which `compute` writes the missing ones together.

        Raises:
            StudyError: a folder cannot be written.
        """
        due = [one for one in every if not self._is_sound(one.path)]
        with ExitStack() as turns:
            for one in sorted(due, key=lambda one: one.path.name):  # one order for all searches
                turns.enter_context(self._turn(one.path.stem))
            missing = [one for one in due if not self._fetch(one.path)]
            if missing:
                compute([one.path for one in missing])
            for one in missing:
                self.share(one.path.name, one.what, partial(_copy, one.path))

    def _is_sound(self, path: Path, lost: str = "It is computed again.") -> bool:
        if not path.exists():
            return False
        try:
            check_entry(path)
        except StudyError as error:
            self.display.warn(f"{error} {lost}")
            return False
        return True

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Hold the one right to compute an entry."""
        if self.folder is None:
            yield
            return
        lock = FileLock(_made(self.folder) / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.display.say(f"Waiting for another search, which computes {name}.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _fetch(self, path: Path) -> bool:
        """Copy a shared entry to the study; return whether there is a sound one."""
        source = self.shared(path.name)
        if source is None:
            return False
        try:
            with appearing(path) as draft:
                _copy(source, draft)
        except StudyError:  # it is not there
            return False
        if not self._is_sound(path, "It is computed again, for all studies."):
            path.unlink()
            return False
        self.note(path.stem)
        return True

    def shared(self, name: str) -> Path | None:
        """Return where a shared file of this name lies, if there is one; None: none is shared."""
        return None if self.folder is None else _home(self.folder) / Path(name).stem / name

    def share(self, name: str, what: str, write: Callable[[Path], None]) -> None:
        """Share the file that `write` makes; a disk that is full keeps no search from going on."""
        path = self.shared(name)
        if path is None or self.folder is None:
            return
        with suppress(OSError, StudyError):
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=_made(self.folder)))
            try:
                write(draft / name)
                write_json(draft / ENTRY, {"for": what, "made": time.time(), "used_by": []})
                remove(path.parent)
                os.replace(draft, path.parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            self.note(path.stem)

    def note(self, name: str) -> None:
        """Note in an entry that the study used it."""
        assert self.folder is not None
        path = _home(self.folder) / name / ENTRY
        with suppress(OSError, StudyError):
            found = _entry(path.parent)
            mine = str(self.study.absolute())
            used = [*(one for one in found.used_by if one != mine), mine][-_USES:]
            write_json(path, {"for": found.made_for, "made": found.made, "used_by": used})


def check_entry(path: Path) -> None:
    """Refuse a file that is not as it was written.

    Raises:
        StudyError: it is missing, damaged, has no seal, or another's.
    """
    if path.suffix == ".json":
        read_sealed(path, path.stem, required=True)
    else:
        load_tensors(path, required=True)


def entries(folder: Path) -> list[Entry]:
    """Return the entries of a shared folder, of all versions, the latest first."""
    found = []
    for path in folder.glob(f"*/*/{ENTRY}"):
        with suppress(StudyError, OSError):
            found.append(_entry(path.parent))
    return sorted(found, key=lambda entry: (-entry.made, entry.path.name))


def remove(entry: Path) -> None:
    """Remove an entry: at once for whoever looks, whole for whoever has it open."""
    if entry.exists():
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=entry.parent))
        os.replace(entry, gone / entry.name)
        shutil.rmtree(gone, ignore_errors=True)


def _entry(folder: Path) -> Entry:
    try:
        content = read_sealed(folder / ENTRY)
        used = tuple(map(str, content["used_by"]))
        return Entry(folder, str(content["for"]), float(content["made"]), used)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{folder / ENTRY} must describe an entry, but: {error!r}") from error


def _home(folder: Path) -> Path:
    """Return the folder of this version's entries: another version may compute otherwise."""
    try:
        return folder / f"{version('igq-vit')}-{RULES}"
    except PackageNotFoundError:  # a checkout that is not installed
        return folder / f"checkout-{RULES}"


def _made(folder: Path) -> Path:
    """Return the folder of this version's entries, which is made where it is missing.

    Raises:
        StudyError: it cannot be.
    """
    home = _home(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"the folder of shared results must be writable, but {home} is not: {error.strerror}. "
            "Name another with IGQ_CACHE, or none with IGQ_CACHE=''."
        ) from error
    return home


def _copy(source: Path, target: Path) -> None:
    """Link a file where the file system can, so that it lies on the disk once; else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
