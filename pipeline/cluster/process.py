"""The process of a driver while Ray starts in it: its signals, terminal and folder for files."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_FOLDER = 32
"""Bytes: Ray adds up to 75 to it, and the path of a socket may have 107."""


@contextmanager
def own_signals() -> Iterator[None]:
    """Put back the handler of SIGTERM: Ray's own ends the process with a C++ stack trace."""
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


@contextmanager
def quiet(said: list[str]) -> Iterator[None]:
    """Keep warnings of Ray's C++, which no logger sees, from the terminal; note them in `said`."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            said.append(aside.read().decode(errors="replace"))


def short_folder() -> str | None:
    """Return a folder for Ray's sockets, whose paths the system limits; None: Ray's own choice.

    A batch system's TMPDIR, with the names of a user and a job, is often too long.
    """
    own = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(own)) <= LONGEST_FOLDER:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}/ray-{os.getuid()}"
    return None
