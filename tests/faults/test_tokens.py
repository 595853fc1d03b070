"""A cluster that wants a token, and a driver that has none: said within seconds."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import THIS_CHECKOUT, head

CHECK = "from pipeline.cluster.ray import RayCluster; RayCluster('{address}').check()"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster with a token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
    with head(tmp_path / "log", cpus=0, **token) as made:
        yield made.address


@pytest.mark.faults
@pytest.mark.parametrize(
    ("token", "said", "seconds"),
    [
        ({}, "it wants a token that this process does not have", 30),
        ({"RAY_AUTH_TOKEN": "f" * 32}, "it does not take the token of this process", 60),
    ],
    ids=["none", "another's"],
)
def test_the_error_comes_at_once(
    token: dict[str, str], said: str, seconds: float, closed: str, tmp_path: Path
) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    bare |= THIS_CHECKOUT | {"HOME": str(tmp_path)} | token
    begun = time.monotonic()
    code = CHECK.format(address=closed)
    run = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True)
    assert time.monotonic() - begun < seconds  # mostly imports of Ray, once more for each question
    assert said in run.stderr.splitlines()[-1]
