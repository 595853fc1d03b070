"""SQLite stores that were moved or copied with the folder that they lie in.

MLflow notes absolute places of artifacts. A store of igq keeps its artifacts in a folder beside it;
where both were moved together, the store's own notes are changed to where the artifacts lie now.
A copy's original is not touched.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "artifacts"
"""The folder of artifacts beside a store."""
_NOTED = (("experiments", "artifact_location"), ("runs", "artifact_uri"))
_NOTED_LATER = (
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Tables that not every version of MLflow has."""


def beside(uri: str) -> Path:
    """Return the folder of artifacts beside a SQLite store.

    >>> beside("sqlite:////studies/demo/mlflow.db").as_posix()
    '/studies/demo/artifacts'
    """
    return Path(uri.partition("///")[2]).resolve().parent / NAME


def bring_artifacts(uri: str, noted: str) -> bool:
    """Note where a moved store's artifacts lie now; return whether anything was changed.

    `noted` is where its experiment keeps artifacts, as a URI. Nothing is changed where that is no
    folder beside a store, or where no artifacts lie beside this one.

    >>> bring_artifacts("sqlite:////nowhere/mlflow.db", "s3://bucket/artifacts")
    False
    """
    here, parts = beside(uri), urlsplit(noted)
    there = Path(unquote(parts.path))
    if parts.scheme not in ("", "file") or there.name != NAME or there == here:
        return False
    if not here.is_dir():
        return False
    with closing(sqlite3.connect(here.parent / Path(uri).name)) as store, store:
        _replace(store, noted, here.as_uri())
    return True


def _replace(store: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the beginning `old` of all places that are noted."""
    tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
    for table, column in (*_NOTED, *_NOTED_LATER):
        if table in tables:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # names of our own
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
