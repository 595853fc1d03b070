"""How a driver learns whether a cluster wants a token, without a cluster."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import services
from ray._private.authentication.authentication_token_setup import _enable_token_auth
from ray._raylet import AuthenticationTokenLoader, get_authentication_mode
from ray.exceptions import AuthenticationError

from pipeline.cluster.ray import joining
from pipeline.errors import ClusterError

ADDRESS = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    joining._answers.cache_clear()
    yield
    joining._answers.cache_clear()


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


@pytest.mark.parametrize("left_over", [True, False], ids=["a file of a dead one", "no cluster"])
def test_auto_without_a_cluster_is_told_at_once(
    left_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps the address of a cluster that was killed, and would wait a quarter of an hour."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    services.find_gcs_addresses.cache_clear()
    monkeypatch.setattr(services, "_find_address_from_flag", lambda _: set[str]())
    kept = ADDRESS if left_over else None
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: kept)
    said = "and none runs on this machine: start one with `ray start"
    if left_over:
        said = "which is .*:9: no answer"
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=f"but got auto, {said}"), joining.connected("auto"):
        pass
    assert time.monotonic() - begun < 2 * joining.CONNECT_SECONDS


def test_a_token_is_for_one_cluster_and_an_open_one_may_be_joined_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a search on workers of this machine, then one on a cluster, in one notebook."""
    token = tmp_path / "token"
    token.write_text("0" * 32)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(joining.ray, "init", lambda *_, **options: _enable_token_auth())
    loader, before = AuthenticationTokenLoader.instance(), get_authentication_mode()
    with joining.connected(None):
        assert (os.environ["RAY_AUTH_MODE"], get_authentication_mode()) == ("token", 1)
        assert loader.has_token()
        token.unlink()
    assert get_authentication_mode() == before == 0
    assert "RAY_AUTH_MODE" not in os.environ
    with pytest.raises(AuthenticationError, match="cannot be opened"):  # it is read anew
        loader.has_token(ignore_auth_mode=True)


@pytest.mark.parametrize("leaves", [False, True], ids=["never leaves", "leaves in time"])
def test_a_process_that_cannot_leave_a_lost_cluster_ends_with_the_message(
    leaves: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(joining, "LEAVE_SECONDS", 0.2)
    monkeypatch.setattr(joining.os, "_exit", codes.append)
    connection = joining.Connection()
    connection.lost(ClusterError("the head of a cluster must stay"))
    if leaves:
        connection.left()
    time.sleep(0.6)
    assert codes == ([] if leaves else [2])
    assert capfd.readouterr().err == ("" if leaves else "igq: the head of a cluster must stay\n")
