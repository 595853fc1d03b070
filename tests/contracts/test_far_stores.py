"""A server far away: on PostgreSQL, with a login, and late in answering each request.

The test installs nothing: it is skipped without PostgreSQL's programs (`apt-get install
postgresql`) and its driver for Python (`make outside`).
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from benchmarks.delayed import Delayed
from pipeline.errors import TrackingError
from pipeline.tracking.mlflow import MlflowTracker
from tests.contracts.test_tracking import STUDY, complete, failed, finish, over_budget, pruned

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
LATE = 0.2
LOGIN = "me:secret"
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL: apt-get install postgresql"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]", path: str | None = None) -> None:
    """Wait until a port is open, or with `path` until a page is there."""
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            if path is None:
                return socket.create_connection(("127.0.0.1", port)).close()
            return urlopen(f"http://127.0.0.1:{port}{path}", timeout=60).close()
        time.sleep(0.2)
    raise AssertionError(f"nothing listens at {port}; exit code {process.poll()}")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URI of a PostgreSQL server of our own, which its own user runs where we are root."""
    pytest.importorskip("psycopg", reason="no psycopg: see `make outside`")
    assert PROGRAMS is not None
    user = {"user": "postgres"} if Path("/root").owner() == Path.home().owner() == "root" else {}
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user:
            subprocess.run(["chown", "postgres", folder], check=True)
        port, data = free_port(), f"{folder}/data"
        subprocess.run(
            [PROGRAMS / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True, cwd=folder, **user, **QUIET,
        )  # fmt: skip
        command = [PROGRAMS / "postgres", "-D", data, "-p", str(port), "-k", folder, "-F"]
        with subprocess.Popen(command, cwd=folder, **user, **QUIET) as running:  # type: ignore[call-overload]
            try:
                wait_for(port, running)
                yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            finally:
                running.send_signal(signal.SIGINT)  # SIGTERM waits for each connection to be closed


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def proxy(
    database: str, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Delayed]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
    folder = tmp_path_factory.mktemp("server")
    with subprocess.Popen(command, cwd=folder, **QUIET) as server:
        late = Delayed(port, LATE, LOGIN)
        try:
            wait_for(port, server, "/health")
            yield late
        finally:
            late.close()
            server.terminate()


def test_a_search_is_kept_by_a_far_server_with_a_login(
    proxy: Delayed, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    tracker = MlflowTracker(proxy.uri)
    tracker.start(STUDY)
    before = proxy.requests
    with proxy.silent():  # recording would not come to an end if it waited for an answer
        for number in range(0, 16, 4):
            for kind, trial in enumerate((complete, pruned, over_budget, failed)):
                tracker.record(trial(number + kind))
    tracker.interrupt()
    assert (proxy.requests - before) / 16 < 8

    again = MlflowTracker(proxy.uri)
    again.start(STUDY)
    again.record(complete(0))
    again.record(complete(16))
    finish(again)

    client = MlflowClient(proxy.uri)
    experiment = client.get_experiment_by_name("igq")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`igq.trial` != ''")
    assert sorted(int(run.data.tags["igq.trial"]) for run in runs) == list(range(17))
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED", "FAILED"}
    assert len(list(artifacts.rglob("allocation.json"))) == 17 + 1


def test_a_wrong_login_is_refused_before_any_work(
    proxy: Delayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_USERNAME"):
        MlflowTracker(proxy.uri).start(STUDY)


def test_a_search_may_write_to_the_database_itself(database: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(database, "directly", artifacts=tmp_path / "kept")
    tracker.start(STUDY)
    for number in range(6):
        tracker.record(complete(number))
    finish(tracker)
    assert len(list((tmp_path / "kept").rglob("allocation.json"))) == 6 + 1
