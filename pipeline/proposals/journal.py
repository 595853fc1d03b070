"""The journal of a study on disk: Optuna's, written by one driver, read by anybody.

It is a file that people copy, cut and edit: what is no outcome of a trial is refused.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from igq import Allocation, Limits, Observation
from pipeline.errors import StudyError
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.history import END, noted_of
from pipeline.proposals.seal import ReadOnly, reopen, sealed_part
from pipeline.study.trials import Origin, Proposal, State, Trial

TOLD = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.OVER_BUDGET: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}
"""The state of a trial -> the one that Optuna is told."""


ENDED = "datetime_complete"
"""The key of a line that ends a trial."""


class Journal(JournalFileBackend):
    """Optuna's journal in a file, for the one driver that may write it: no lock is taken.

    The disk is waited for at the end of a trial alone: the lines before it are on disk then too. A
    trial without its end runs again, whatever else is known of it; so lines that count only with
    it are written with it. The driver reads the file once; what it appends it knows. Studies of
    one journal, such as a search's rivals, each see what the others have appended.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._held: list[bytes] = []
        self._unread = deque[dict[str, Any]]()
        self._known: int | None = None  # bytes of the file

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the operations from a line on: in the file at first, then those appended since."""
        if self._known is None:
            self._known = self._path.stat().st_size
            yield from super().read_logs(0)
        self._meet_others()
        while self._unread:
            yield self._unread.popleft()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines.

        Raises:
            StudyError: the disk is full, or the file cannot be written for another reason.
        """
        self._held += [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if not all(map(_counts_with_its_end, logs)):
            self._write(wait=any(ENDED in log for log in logs))
        self._unread += logs

    def _meet_others(self) -> None:
        """Read the lines that another study of this journal has appended since."""
        size = self._path.stat().st_size
        if self._known is not None and size > self._known:
            with self._path.open("rb") as file:
                file.seek(self._known)
                self._unread += map(json.loads, file.read(size - self._known).splitlines())
        self._known = size

    def _write(self, wait: bool) -> None:
        """Append the lines that are held, after those of others."""
        self._meet_others()
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(self._held))
                file.flush()
                if wait:
                    os.fsync(file.fileno())
        except OSError as error:
            raise StudyError(
                f"{self._path} must be writable, but is not: {error.strerror}. The study is whole "
                "up to here: make room, then go on with --resume."
            ) from error
        finally:
            self._known = self._path.stat().st_size
        self._held.clear()


def _counts_with_its_end(log: Mapping[str, Any]) -> bool:
    """Return whether an operation is of no use while its trial has not ended."""
    return "intermediate_value" in log or END in log.get("user_attr", ())


def opened(journal: Path) -> JournalStorage:
    """Open a journal to write to it, whatever a driver that died has left behind.

    Raises:
        StudyError: the journal is not the one that was sealed.
    """
    # Only one driver has the study open: a lock that is still there is a dead one's.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    reopen(journal)
    return JournalStorage(Journal(journal))


def read_trials(journal: Path, name: str, limits: Limits) -> tuple[Trial, ...]:
    """Return the trials that have ended in a study's journal, which is only read.

    Raises:
        StudyError: there is no such journal, no study in it, or it is damaged.
    """
    with reading(journal):
        return ended_trials(load_journal(journal, name), Encoding(limits))


def load_journal(journal: Path, name: str) -> optuna.Study:
    """Return the study in a journal's sealed part; call it within `reading`.

    Raises:
        StudyError: there is no such journal, no study in it, or it is not the one that was sealed.
    """
    if not journal.exists():
        raise StudyError(f"a study must hold {journal.name}, but {journal.parent} has none.")
    return study_in(sealed_part(journal), journal, name)


def study_in(content: bytes, journal: Path, name: str) -> optuna.Study:
    """Return the study in these lines of a journal; call it within `reading`.

    Raises:
        StudyError: there is no study of this name in them.
    """
    storage = JournalStorage(ReadOnly(content))
    if name not in [study.study_name for study in storage.get_all_studies()]:
        raise StudyError(f"{journal} must hold the study {name}, but does not.")
    return optuna.load_study(study_name=name, storage=storage)


@contextmanager
def reading(journal: Path) -> Iterator[None]:
    """Name the journal where it is damaged, which makes Optuna raise nearly everything.

    Raises:
        StudyError: it is damaged.
    """
    try:
        yield
    except (StudyError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = "".join(letter for letter in lines[0] if letter.isprintable())
        raise StudyError(
            f"{journal} must be the journal of a study, but is damaged "
            f"({type(error).__name__}: {reason}); put a copy back, or choose another --out."
        ) from error


def ended_trials(study: optuna.Study, encoding: Encoding) -> tuple[Trial, ...]:
    """Return the trials of a study that have ended, in order."""
    finished = study.get_trials(deepcopy=False, states=tuple(TOLD.values()))
    return tuple(read_trial(trial, encoding) for trial in finished if "state" in noted_of(trial))


def read_trial(trial: FrozenTrial, encoding: Encoding) -> Trial:
    """Return a trial as it was noted.

    Raises:
        ValueError: it is no outcome of a trial: a number that is none, or too few of them.
        KeyError: a part of it is missing.
    """
    noted = noted_of(trial)
    for name, known in encoding.settings.items():
        if trial.params[name] not in range(len(known)):
            raise ValueError(f"trial {trial.number} has setting {trial.params[name]} of {name}")
    kls, chunks = _numbers(trial, "kls"), noted["chunks"]
    if not all(type(images) is int and images > 0 for images in chunks) or sum(chunks) != len(kls):
        raise ValueError(f"trial {trial.number} has {len(kls)} KLs in chunks of {chunks}")
    if (state := State(noted["state"])) is State.COMPLETE and not kls:
        raise ValueError(f"trial {trial.number} is complete, but has seen no image")
    return Trial(
        proposed(trial.number, Origin(noted["origin"]), encoding.decode(trial.params), encoding),
        state,
        Observation(kls, _numbers(trial, "shifts") if "shifts" in noted else ()),
        _number(trial, "seconds", noted["seconds"]),
        _text(noted, "error"),
        tuple(chunks),
        _text(noted, "node") or "",
        None if (ended := trial.datetime_complete) is None else ended.timestamp(),
    )


def proposed(number: int, origin: Origin, allocation: Allocation, encoding: Encoding) -> Proposal:
    """Return a proposal layer by layer, with its costs."""
    costs = encoding.limits.costs(allocation)
    return Proposal(number, origin, encoding.of_layers(allocation), costs)


def _numbers(trial: FrozenTrial, name: str) -> tuple[float, ...]:
    return tuple(_number(trial, name, value) for value in noted_of(trial)[name])


def _number(trial: FrozenTrial, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"trial {trial.number} has {value!r} in {name}, which is no number")
    return value


def _text(noted: Mapping[str, Any], name: str) -> str | None:
    value = noted.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, which is no text")
    return value
