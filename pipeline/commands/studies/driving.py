"""The process that drives a search, as its folder notes it: whether it lives, and where."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StudyError
from pipeline.files import read_json

_WRITTEN: Mapping[str, tuple[tuple[type, ...], float, float]] = {
    "host": ((str,), 0, 0),
    "pid": ((int,), 1, 2**31 - 1),
    "process": ((str,), 0, 0),
    "since": ((int, float), 0, 2**53),
    "trials": ((int,), 1, 2**53),
}
"""Part of the note -> its types, and the least and most of a number."""


@dataclass(frozen=True)
class Driving:
    """A driver.

    >>> Driving.here(trials=12).alive
    True
    """

    host: str
    pid: int
    process: str
    """Its identity, which a later process of the same number lacks; empty where there is none."""
    since: float
    """Unix time in seconds at which it began."""
    trials: int
    """The trials that the study is to have."""

    @classmethod
    def here(cls, trials: int) -> "Driving":
        """Return this process, which begins to drive now."""
        return cls(socket.gethostname(), os.getpid(), _birth(os.getpid()), time.time(), trials)

    @classmethod
    def read(cls, path: Path) -> "Driving | None":
        """Read the note; None for a study of before, which has none.

        Raises:
            StudyError: it is damaged.
        """
        if not os.path.lexists(path):
            return None
        noted = read_json(path)
        if not isinstance(noted, dict) or noted.keys() != _WRITTEN.keys():
            raise _damaged(path, f"its keys must be {', '.join(_WRITTEN)}")
        for name, (kind, least, most) in _WRITTEN.items():
            value = noted[name]
            inside = type(value) in kind and (kind == (str,) or least <= value <= most)
            if not inside:
                raise _damaged(path, f"its {name} is {value!r:.80}")
        return cls(**noted)

    def json(self) -> Mapping[str, Any]:
        """Return the note as plain data."""
        return asdict(self)

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where it is another machine's."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # of another user
        return _birth(self.pid) == self.process


def _damaged(path: Path, reason: str) -> StudyError:
    advice = "remove it, or resume the search, which writes it again"
    return StudyError(f"{path} must note the driver of the search, but {reason}: {advice}.")


def _birth(pid: int) -> str:
    """Return the clock tick at which a process began, where the system tells."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
