"""Stores whose folder was moved."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.files import write_json
from pipeline.tracking.moved import bring_artifacts
from pipeline.tracking.uris import noted, sqlite_uri, tracked_at


def store(folder: Path, artifacts: str) -> Path:
    """A store with the columns of MLflow's that name places."""
    (folder / "artifacts").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT)")
        connection.execute("INSERT INTO experiments VALUES (?)", (artifacts,))
        connection.execute("INSERT INTO runs VALUES (?)", (f"{artifacts}/1/artifacts",))
        connection.execute("INSERT INTO runs VALUES (?)", (f"{artifacts}-not/1",))
    return folder


def places(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        rows = connection.execute(
            "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs"
        )
        return [place for (place,) in rows]


def test_places_beside_a_moved_store_follow_it_and_others_stay(tmp_path: Path) -> None:
    old = (tmp_path / "old" / "artifacts").as_uri()
    folder = store(tmp_path / "new 50%", old)
    assert bring_artifacts(sqlite_uri(folder), old)
    here = (folder / "artifacts").as_uri()
    assert places(folder) == [here, f"{here}/1/artifacts", f"{old}-not/1"]
    assert not bring_artifacts(sqlite_uri(folder), here)


@pytest.mark.parametrize("elsewhere", ["s3://bucket/artifacts", "file:///data/kept"])
def test_places_that_were_chosen_stay(tmp_path: Path, elsewhere: str) -> None:
    folder = store(tmp_path / "new", elsewhere)
    assert not bring_artifacts(sqlite_uri(folder), elsewhere)
    assert places(folder)[0] == elsewhere


def test_a_store_that_was_moved_without_its_artifacts_is_left_alone(tmp_path: Path) -> None:
    old = (tmp_path / "old" / "artifacts").as_uri()
    folder = store(tmp_path / "new", old)
    (folder / "artifacts").rmdir()
    assert not bring_artifacts(sqlite_uri(folder), old)


def test_a_moved_study_is_tracked_in_its_own_folder(tmp_path: Path) -> None:
    old = tmp_path / "old"
    location = f"{sqlite_uri(old)}, experiment igq, run 1"
    write_json(old / "tracking.json", noted(location, old))
    shutil.move(old, tmp_path / "new")
    assert tracked_at(tmp_path / "new") == sqlite_uri(tmp_path / "new")


def test_a_study_that_is_tracked_elsewhere_stays_there_when_it_moves(tmp_path: Path) -> None:
    location = "sqlite:////shared/mlflow.db, experiment igq, run 1"
    write_json(tmp_path / "tracking.json", noted(location, tmp_path))
    assert tracked_at(tmp_path) == "sqlite:////shared/mlflow.db"
