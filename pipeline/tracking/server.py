"""MLflow's web interface on a store."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import TrackingError
from pipeline.tracking.views import TRAINING, address

PATIENCE = 5.0
"""Seconds that the server has to end before it is killed (our choice)."""
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Jobs judge language models; eight processes would wait for them beside the server."""


def serve(uri: str, host: str, port: int, ready: Callable[[], object] = lambda: None) -> int:
    """Show a store in MLflow's web interface until it is interrupted; return its exit code.

    `ready` is called once the interface answers. Whatever the server starts ends with it.

    Raises:
        TrackingError: the port is taken.
    """
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise TrackingError(f"`port` must be free on {host}, but got {port}: {error}") from error
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    environment = WITHOUT_JOBS | os.environ
    # Its workers are one group.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        _when_it_answers(server, host, port, ready)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(server)


def pages(base: str, experiment: str, run: str) -> tuple[str, str, str]:
    """Return the addresses of a study's own page, of its trials by KL, and of plots of them.

    >>> own, trials, plots = pages("http://127.0.0.1:5000", "1", "0abc")
    >>> own
    'http://127.0.0.1:5000/#/experiments/1/runs/0abc?workflowType=machine_learning'
    """
    base = base.rstrip("/")
    own = f"{base}/#/experiments/{experiment}/runs/{run}?{TRAINING}"
    return own, address(base, experiment, run), address(base, experiment, run, plots=True)


def _when_it_answers(
    server: "subprocess.Popen[bytes]", host: str, port: int, ready: Callable[[], object]
) -> None:
    def wait() -> None:
        while server.poll() is None:
            with suppress(OSError):
                socket.create_connection((host, port), timeout=1).close()
                ready()
                return
            time.sleep(0.2)

    threading.Thread(target=wait, daemon=True).start()


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Tell the server's whole group to end, and kill what is left of it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
