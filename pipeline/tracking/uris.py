"""URIs of MLflow servers and stores, and the errors of those that cannot be reached."""

import hashlib
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from pipeline.errors import TrackingError
from pipeline.study.folder import Folder
from pipeline.study.seals import name_of, read_sealed

PASSWORD = re.compile(r"(?<=//)[^/@\s]*@")
_RACE = re.compile(
    r"already exists|duplicate key|UNIQUE constraint|database is locked|out-of-date database"
    r"|duplicate column|expected to match one row|No such revision"
    r"|Can't locate revision|no such table|does not exist|deadlock",
    re.IGNORECASE,
)
_READ_OTHERWISE = re.compile(r"\?|%[0-9A-Fa-f]{2}")
PATIENCE = 300.0
"""Seconds to wait for another process that opens the same store (our choice)."""
DATABASES = ("postgresql", "mysql", "mssql")


def sqlite_uri(folder: Path) -> str:
    """Return the URI of the SQLite store in a folder, the same from every working directory."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def without_password(text: str) -> str:
    """Return the text without user names and passwords in its URIs.

    >>> without_password("postgresql://me:secret@host/mlflow")
    'postgresql://host/mlflow'
    """
    return PASSWORD.sub("", text)


def noted(location: str, study: Path) -> dict[str, str | bool]:
    """Return the note of where a study's trials are tracked.

    A store in the study's folder is noted as such, since it moves with the folder.

    >>> noted("http://server/#/experiments/1", Path("/studies/one"))
    {'location': 'http://server/#/experiments/1', 'inside': False}
    """
    inside = location.partition(", ")[0] == sqlite_uri(study)
    return {"location": location, "inside": inside}


def tracked_at(study: Path) -> str:
    """Return where a study's trials are tracked: the URI of a store, or a page of a server.

    A store in the study's folder is found wherever that was moved to. A study of before, which
    notes nothing, has a store in its folder.

    >>> tracked_at(Path("/studies/old"))
    'sqlite:////studies/old/mlflow.db'
    """
    note = Folder(study).tracking
    if not note.exists() and name_of(note) is None:
        return sqlite_uri(study)
    content = read_sealed(note)
    location = str(content.get("location", ""))
    if content.get("inside") or "://" not in location:
        return sqlite_uri(study)
    return location.partition(", ")[0]


def is_race(error: BaseException) -> bool:
    """Return whether an error is that of a store that another process makes at the same time.

    >>> is_race(Exception("table experiments already exists")), is_race(Exception("no route"))
    (True, False)
    """
    return bool(_RACE.search(str(error)))


def is_database(uri: str) -> bool:
    """Return whether a URI is that of a database server.

    >>> is_database("postgresql+psycopg2://host/mlflow"), is_database("http://host")
    (True, False)
    """
    return uri.startswith(DATABASES)


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Hold a SQLite store while it is opened: two migrations at once would leave a broken one.

    The lock is for processes of this machine, and lies with its temporary files.
    """
    if not uri.startswith("sqlite"):
        yield
        return
    path = Path(uri.partition("///")[2]).resolve()
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"igq_{name}.lock", timeout=PATIENCE, mode=0o666):
        yield


def try_sqlite(uri: str) -> None:
    """Raise the error that keeps a SQLite store from being written; make its folder.

    Raises:
        TrackingError: its path has a `?`, which would begin options of the URI, or what stands for
            another character.
    """
    if odd := _READ_OTHERWISE.search(uri):
        raise TrackingError(
            f"`tracking` must be a store whose path has no `?` and no `%` before two digits, as "
            f"MLflow reads them otherwise, but got `{odd.group()}` in {uri}. Give another --out, "
            "or a store elsewhere with --tracking."
        )
    path = Path(uri.partition("///")[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA user_version = 0")  # a lock alone a read-only file may give
        connection.rollback()


def refusal(uri: str, error: BaseException) -> TrackingError:
    """Return the error for a store that cannot be reached or written."""
    reason = str(error) or type(error).__name__
    for link in _chain(error):  # the system's own words, if any, say most in least
        reason = getattr(link, "strerror", None) or reason
    message = (
        "`tracking` must be the URI of a reachable MLflow server or store, but got "
        f"{uri}: {reason.splitlines()[0].rstrip('.')}"
    )
    if uri.startswith("sqlite"):
        message += ". Make it a file that can be written, or give another store with --tracking."
    elif "401" in reason or "403" in reason:
        message += (
            ". Say who you are: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    else:
        message += ". Start it, or mend the URI; without --tracking a store in --out is used."
    return TrackingError(without_password(message))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from; they may lead back to one another."""
    met: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in met:
        yield link
        met.add(id(link))
        link = link.__cause__ or link.__context__
