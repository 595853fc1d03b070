"""A tiny space whose trials take their time, so that something can happen to them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from tests import clusters
from tests.clusters import ROOT, Nodes
from tests.faults import outcomes, searches
from tests.pipeline.conftest import SPACE, make_model

collect_ignore = ["patched"]  # it changes whatever imports it
HERE = Path(__file__).parent / "patched"
CHUNK_SECONDS = "0.1"
"""A trial has eight chunks."""


@pytest.fixture(autouse=True, scope="module")
def _troubles() -> Iterator[None]:
    """Have every process that is started find the patched objective."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(clusters.THIS_CHECKOUT, "PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")
        patch.setenv("IGQ_CHUNK_SECONDS", CHUNK_SECONDS)
        yield


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    searches.end_all()


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """The YAML of a space whose study takes a second, if nothing sleeps."""
    save_file(make_model().state_dict(), tmp_path / "weights.safetensors")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(SPACE | {"num_groups": [1, 2, 3, 4, 6]}))
    return path


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of a head and two nodes that tests may use, not break."""
    with clusters.cluster(one=1, two=1) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the outcome of each fault."""
    if outcomes.OUTCOMES:
        terminalreporter.section("outcome of each fault")
        for line in outcomes.table():
            terminalreporter.write_line(line)
