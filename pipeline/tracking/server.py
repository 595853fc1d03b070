"""MLflow's web interface on a store."""

import socket
import subprocess
import sys

from pipeline.errors import TrackingError


def serve(uri: str, host: str, port: int) -> int:
    """Show a store in MLflow's web interface until it is interrupted; return its exit code.

    Raises:
        TrackingError: the port is taken.
    """
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        raise TrackingError(f"`port` must be free on {host}, but got {port}: {error}") from error
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return 0
