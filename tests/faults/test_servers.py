"""An MLflow server that is away for half a minute, or never comes back."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.clusters import igq
from tests.faults.searches import PATIENCE, begin, check_sound


@dataclass
class Server:
    """An MLflow server that can go away."""

    store: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host"]
        command += ["127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.store}"]
        command += ["--artifacts-destination", str(self.store.parent / "artifacts")]
        log = (self.store.parent / "server.log").open("a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:  # its first answer takes longest, as it opens its store then
                urlopen(f"{self.uri}/api/2.0/mlflow/experiments/search?max_results=1", timeout=60)
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"no server on {self.port}")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(tmp_path / "mlflow.db", port)
    server.start()
    yield server
    server.stop()


@pytest.mark.faults
def test_a_server_that_is_away_for_half_a_minute_gets_all(
    server: Server, space: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    options = ["--workers", "1", "--tracking", server.uri]
    search = begin(space, tmp_path / "study", *options, IGQ_GATE=str(gate))
    search.reaches(3)
    server.stop()
    away = time.monotonic()
    search.reaches(6)
    gate.touch()
    time.sleep(max(0.0, 30 - (time.monotonic() - away)))
    server.start()
    gate.unlink()
    printed = search.ends()
    assert "The search goes on" in printed
    check_sound(search, "MLflow server away for 30 s", store=server.store)


@pytest.mark.faults
def test_a_server_that_never_comes_back_does_not_end_a_search(
    server: Server, space: Path, tmp_path: Path
) -> None:
    search = begin(space, tmp_path / "study", "--workers", "1", "--tracking", server.uri)
    search.reaches(3)
    server.stop()
    printed = " ".join(search.ends().split())
    assert f"`igq sync {search.folder}` writes the rest" in printed
    server.start()
    for _ in range(2):
        sync = igq("sync", str(search.folder))
        said, _ = sync.communicate(timeout=PATIENCE)
        assert sync.returncode == 0, said
        assert "16 trials and the result" in said
    check_sound(search, "MLflow server never back; `igq sync` twice", store=server.store)
