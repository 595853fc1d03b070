"""The journal of a study on disk: Optuna's, written by one driver, read by anybody."""

import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from pipeline.errors import StudyError

ENDED = "datetime_complete"
"""The key of a line that ends a trial."""


class Journal(JournalFileBackend):
    """Optuna's journal in a file, for the one driver that may write it: no lock is taken.

    The disk is waited for at the end of a trial alone: the lines before it are on disk then too. A
    trial without its end runs again, whatever else is known of it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines.

        Raises:
            StudyError: the disk is full, or the file cannot be written for another reason.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if any(ENDED in log for log in logs):
                    os.fsync(file.fileno())
        except OSError as error:
            raise StudyError(
                f"{self._path} must be writable, but is not: {error.strerror}. The study is whole "
                "up to here: make room, then go on with --resume."
            ) from error


def opened(journal: Path) -> JournalStorage:
    """Open a journal to write to it, whatever a driver that died has left behind."""
    # Only one driver has the study open: a lock that is still there is a dead one's.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if journal.exists() and not (content := journal.read_bytes()).endswith(b"\n"):
        with journal.open("r+b") as file:  # a torn line, which the next one would join
            file.truncate(content.rfind(b"\n") + 1)
    return JournalStorage(Journal(journal))


def load_journal(journal: Path, name: str) -> optuna.Study:
    """Return the study in a journal, which is only read.

    Raises:
        StudyError: there is no such journal, or no study in it.
    """
    if not journal.exists():
        raise StudyError(f"a study must hold {journal.name}, but {journal.parent} has none.")
    storage = JournalStorage(JournalFileBackend(str(journal)))
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise StudyError(f"{journal} must hold the study {name}, but does not.") from error
