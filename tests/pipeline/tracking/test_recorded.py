"""A whole study in MLflow: copied, resumed in its new place, and complete there."""

import csv
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient

import pipeline
from pipeline.study.progress import SilentDisplay
from pipeline.tracking import sqlite_uri
from pipeline.tracking.store import find_study


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_copied_study_is_resumed_in_its_new_place_and_the_original_stays(
    recorded_study: Path, tmp_path: Path
) -> None:
    copy, before = tmp_path / "copied 100 %", contents(recorded_study)
    shutil.copytree(recorded_study, copy)
    space = recorded_study.parent / "space" / "tiny.yaml"
    longer = {"trials": 15, "resume": True, "rivals": False, "figures": False}
    pipeline.search(space, copy, display=SilentDisplay(), **longer)  # type: ignore[arg-type]
    assert contents(recorded_study) == before

    key = json.loads((copy / "study.json").read_text())["key"]
    found = find_study(sqlite_uri(copy), key)
    assert found is not None
    client = MlflowClient(sqlite_uri(copy))
    runs = client.search_runs([found[0]], f"tags.`mlflow.parentRunId` = '{found[1]}'")
    assert sorted(int(run.data.tags["igq.trial"]) for run in runs) == list(range(15))
    states = {run.info.status for run in (*runs, client.get_run(found[1]))}
    assert "RUNNING" not in states
    for run in runs:
        assert Path(unquote(urlsplit(run.info.artifact_uri).path)).is_relative_to(copy)


@pytest.mark.slow
def test_the_report_the_figures_and_their_numbers_are_artifacts(recorded_study: Path) -> None:
    key = json.loads((recorded_study / "study.json").read_text())["key"]
    found = find_study(sqlite_uri(recorded_study), key)
    assert found is not None
    client = MlflowClient(sqlite_uri(recorded_study))
    names = {file.path for file in client.list_artifacts(found[1])}
    pictures = {"search", "groups", "sensitivity", "final", "comparison", "workers"}
    assert {f"{name}.png" for name in pictures} <= names
    assert {"report.html", "trials.csv", "sensitivities.csv", "result.json"} <= names
    with (recorded_study / "figures" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(12))
    assert all(row["ended"] and row["node"] for row in rows if row["state"] == "complete")
