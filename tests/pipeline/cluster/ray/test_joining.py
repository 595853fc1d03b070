"""How a driver learns whether a cluster wants a token, without a cluster."""

import subprocess
from collections.abc import Iterator

import pytest

from pipeline.cluster.ray import joining
from pipeline.errors import ClusterError

ADDRESS = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    joining._open_to_all.cache_clear()
    yield
    joining._open_to_all.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that each question to a cluster was given; every one is answered with yes."""
    given: list[float] = []

    def run(command: list[str], timeout: float, **options: object) -> object:
        given.append(timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(joining.subprocess, "run", run)
    return given


def test_a_cluster_is_asked_once_and_has_time(asked: list[float]) -> None:
    assert joining._open_to_all(ADDRESS)
    assert joining._open_to_all(ADDRESS)
    assert asked == [joining.ANSWER_SECONDS]
    assert joining.ANSWER_SECONDS >= 60  # importing Ray takes 20 s on a busy machine


def test_ray_that_does_not_start_in_time_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(*arguments: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.")  # as Ray does

    monkeypatch.setattr(joining.ray, "init", late)
    said = "Ray must start on this machine .*less busy.* timed out during startup.$"
    with pytest.raises(ClusterError, match=said), joining.connected(None):
        pass
