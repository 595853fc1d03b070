"""The web interface: its pages, and that nothing outlives it."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.cli.pages import show_pages
from pipeline.errors import TrackingError
from pipeline.files import write_json
from pipeline.tracking import StudyRun, sqlite_uri
from pipeline.tracking.mlflow import MlflowTracker
from pipeline.tracking.server import pages, serve
from pipeline.tracking.store import bring_view, find_study
from pipeline.tracking.views import TAG
from tests.pipeline.conftest import make_trial

SERVER = """#!/bin/sh
echo $$ > {folder}/server
sleep 600 &
echo $! > {folder}/child
exec {python} -c 'import http.server as s, sys
s.test(s.SimpleHTTPRequestHandler, port=int(sys.argv[-3]), bind="127.0.0.1")' "$@"
"""
"""A server that answers and has a child."""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def fake_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that notes the processes of a server that stands for MLflow's."""
    python = tmp_path / "python"
    python.write_text(SERVER.format(folder=tmp_path, python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return tmp_path


def runs(process: Path) -> bool:
    try:
        os.kill(int(process.read_text()), 0)
    except ProcessLookupError:
        return False
    state = Path("/proc", process.read_text().strip(), "stat").read_text().rpartition(")")[2]
    return state.split()[0] != "Z"  # a child without a parent waits to be collected


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_whatever_the_server_started_ends_with_it(fake_server: Path, port: int) -> None:
    def interrupt() -> None:
        assert runs(fake_server / "child")
        os.kill(os.getpid(), 2)  # as Ctrl-C does, once the interface answers

    assert serve("sqlite:////a/mlflow.db", "127.0.0.1", port, interrupt) == 0
    end = time.monotonic() + 5
    while runs(fake_server / "child") and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(fake_server / "child")
    assert not runs(fake_server / "server")
    socket.create_server(("127.0.0.1", port)).close()


def test_a_study_has_a_page_one_of_its_trials_by_kl_and_one_of_plots() -> None:
    own, trials, plots = pages("http://here:5000/", "7", "0abc")
    top, training = "http://here:5000/#/experiments/7/runs", "workflowType=machine_learning"
    assert own == f"{top}/0abc?{training}"
    assert trials == f"{top}?{training}&viewStateShareKey=0abc"
    assert plots == f"{trials}&compareRunsMode=CHART"


@pytest.mark.slow
def test_a_study_is_found_in_a_store_by_its_key(tmp_path: Path) -> None:
    uri = sqlite_uri(tmp_path)
    tracker = MlflowTracker(uri, experiment="mine")
    tracker.start(StudyRun("vit", "key 1", {}, 9))
    tracker.record(make_trial())
    tracker.finish({}, {}, {}, [])
    found = find_study(uri, "key 1")
    assert found is not None
    client = MlflowClient(uri)
    kept = client.get_experiment(found[0]).tags
    assert f"tags.`mlflow.parentRunId` = '{found[1]}'" in kept[f"{TAG}{found[1]}"]

    client.delete_experiment_tag(found[0], f"{TAG}{found[1]}")  # as one of before
    bring_view(uri, *found)
    assert client.get_experiment(found[0]).tags == kept
    assert tracker.location.endswith(f"experiment mine, run {found[1]}")
    assert find_study(uri, "key 2") is None


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"key": "0abc"})
    with pytest.raises(TrackingError, match="must be a store that exists"):
        show_pages(tmp_path, "127.0.0.1", 5000, None)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
