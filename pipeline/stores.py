"""URIs of MLflow servers and stores: what they name, and what to say where none is reached."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.errors import TrackingError

PASSWORD = re.compile(r"(?<=//)[^/@\s]*@")
DATABASES = ("postgresql", "mysql", "mssql")


def without_password(text: str) -> str:
    """The text with no user's name and password in its URIs.

    >>> without_password("postgresql://me:secret@host/mlflow")
    'postgresql://host/mlflow'
    """
    return PASSWORD.sub("", text)


def is_database(uri: str) -> bool:
    """Whether it is a database server's.

    >>> is_database("postgresql+psycopg2://host/mlflow"), is_database("http://host")
    (True, False)
    """
    return uri.startswith(DATABASES)


def try_sqlite(uri: str) -> None:
    """Raise what keeps a SQLite store from being written; its folder is made if need be."""
    path = Path(uri.partition("///")[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def refusal(uri: str, error: BaseException) -> TrackingError:
    """What to raise where a store cannot be reached or written, and what its user can do."""
    reason = str(error) or type(error).__name__
    link: BaseException | None = error
    while link is not None:  # the system's own words, if any, say most in least
        reason = getattr(link, "strerror", None) or reason
        link = link.__cause__ or link.__context__
    message = (
        "`tracking` must be the URI of a reachable MLflow server or store, but got "
        f"{uri}: {reason.splitlines()[0].rstrip('.')}"
    )
    if not uri.startswith("sqlite"):
        message += ". Start it, or mend the URI; without --tracking a store in --out is used."
    return TrackingError(without_password(message))
