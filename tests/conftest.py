"""The ground of every test: checked signatures, no network, one thread, real assets if any."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import install_import_hook

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: the tests beside them leave Ray's workers no core
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that wait for nothing
    "IGQ_CACHE": "",  # no test finds another's results
    "OMP_NUM_THREADS": "1",  # as in a Ray worker: the same sums in the same order
}
# Whoever starts pytest in the background of a script has it ignore Ctrl-C, and so what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parent.parent


def modules_with_shapes() -> list[str]:
    """Return the modules whose signatures state shapes; mypy alone checks the others'."""
    packages = ("igq", "pipeline", "search_spaces")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    shaped = [path.relative_to(ROOT) for path in files if "jaxtyping" in path.read_text()]
    return [".".join(path.with_suffix("").parts) for path in shaped]


# `make test` leaves it out where whole studies run: they take three times as long with it.
if "JAXTYPING_DISABLE" not in os.environ:
    install_import_hook(modules_with_shapes(), "beartype.beartype")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and images; the test is skipped where there is none."""
    folder = Path(os.environ.get("IGQ_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip("no real weights and images: set IGQ_ASSETS to their folder")
    return folder


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """As outside of tests, where no import hook checks shapes before the function does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
