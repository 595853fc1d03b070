"""Ray in this process: joined or started here, and left again. Its token, its words, its folder."""

import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray
from ray._private import worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,  # as `ray start` does when it joins a cluster
)
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from pipeline.cluster.process import own_signals, quiet, short_folder
from pipeline.errors import ClusterError
from pipeline.threads import PATIENT, wait_patiently

CONNECT_SECONDS = 10
"""Seconds within which the machine at a cluster's address must answer (our choice)."""
ANSWER_SECONDS = 90
"""Seconds within which a command of Ray's must end: it imports Ray, also on a busy machine."""
LEAVE_SECONDS = 30.0
"""The time to leave a cluster whose head is gone: Ray ends the process after a minute."""
NO_TOKEN = (
    "it is none, or it wants a token that this process does not have. Copy the head's "
    "~/.ray/auth_token to the same place here."
)
WRONG_TOKEN = (
    "it is none, or it does not take the token of this process (of RAY_AUTH_TOKEN, "
    "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token). Copy the head's ~/.ray/auth_token to the same "
    "place here."
)
_TOKEN = re.compile("authenticat|auth token|token auth|AUTH_TOKEN", re.IGNORECASE)
RULE = "`cluster` must be the address of a running Ray cluster"
STARTS = "Ray must start on this machine within half a minute (try again when it is less busy)"
AUTH_MODE = "RAY_AUTH_MODE"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change to come
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when it is to be silent
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own returns as if the study had ended
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever resumed from Tune's snapshots
}  # settings that Ray takes in no other way


class Connection:
    """A cluster that this process has joined, until it has left it again."""

    def __init__(self) -> None:
        self._end: threading.Timer | None = None

    def lost(self, error: Exception) -> None:
        """End the process with the error's message, unless the cluster is left before long.

        A call that waits for a head that is gone never returns: Ray ends the process, without a
        word that says why.
        """
        self._end = threading.Timer(LEAVE_SECONDS, _end_with, [error])
        self._end.daemon = True
        self._end.start()

    def left(self) -> None:
        """Take note that the cluster was left."""
        if self._end is not None:
            self._end.cancel()


def _end_with(error: Exception) -> None:
    os.write(2, f"igq: {error}\n".encode())  # another thread may hold Python's own lock
    os._exit(2)  # as the command does after a ClusterError


@contextmanager
def connected(
    address: str | None, size: int = 0, memory: int | None = None
) -> Iterator[Connection]:
    """Join a cluster and leave it afterwards, or start Ray here and stop it afterwards.

    Ray that is started here has room for objects of `size` bytes, and `memory` bytes for workers;
    None: its own estimate.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    worker.print_to_stdstream = _unsaid
    connection, mode = Connection(), os.environ.get(AUTH_MODE)
    try:
        if address is None:
            wait_patiently()  # the processes that Ray starts ahead for workers inherit it
            room = {"object_store_memory": 2 * size + 2**27, "_memory": memory}
            _init("local", include_dashboard=False, _temp_dir=short_folder(), **room)
        else:
            found = _found(address)
            _check_answers(found, address if address == found else f"{address}, which is {found}")
            _init(found)
        yield connection
    finally:
        ray.shutdown()
        connection.left()
        _take_mode(mode)


def _take_mode(mode: str | None) -> None:
    """Set Ray's authentication mode of this process; None leaves it to Ray.

    Ray turns tokens on for the whole process when it is started, or joins a cluster that has one.
    An open cluster that is joined afterwards then takes the driver for dead.
    """
    os.environ.pop(AUTH_MODE, None)
    if mode is not None:
        os.environ[AUTH_MODE] = mode
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _unsaid(data: object, ignore_prefix: bool) -> None:
    """Keep the state of a node that died, dozens of lines, from the terminal."""


def check_head() -> None:
    """Check that the head of the connected cluster answers; Ray itself would end the process.

    Raises:
        ClusterError: it is gone.
    """
    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"the head of a cluster must stay while a search runs, but {address} is gone: the "
            "study is whole, go on with --resume once there is a cluster again."
        ) from error


def _open_to_all(address: str) -> bool:
    """Return whether a cluster answers without a token.

    With a token such a cluster is joined, but takes the driver for dead: it cannot call it back,
    and every trial is lost.
    """
    return _answers(address, "disabled")


@cache
def _answers(address: str, mode: str) -> bool:
    """Return whether a cluster answers with or without a token; asked once in a process."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    environment = os.environ | {AUTH_MODE: mode}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def _init(address: str, **options: Any) -> None:
    """Initialise Ray without a word on the terminal; signals stay the command's."""
    said: list[str] = []
    try:
        with own_signals(), quiet(said):
            if address != "local":
                if not _open_to_all(address):
                    _take_token(address)
                patient = {name: os.environ.get(name, value) for name, value in PATIENT.items()}
                options["runtime_env"] = {"env_vars": patient}  # before workers import torch
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except ClusterError:
        raise
    except Exception as error:  # Ray raises no narrower one where it starts too slowly
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if address == "local":
            raise ClusterError(f"{STARTS}, but it did not: {reason}") from error
        if _TOKEN.search(f"{reason} {''.join(said)}"):
            reason = WRONG_TOKEN
        raise ClusterError(f"{RULE}, but got {address}: {reason}") from error


def _take_token(address: str) -> None:
    """Have Ray send this process's token, or say what is wrong: Ray itself waits for minutes.

    Raises:
        ClusterError: the cluster is closed to this process.
    """
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise ClusterError(f"{RULE}, but got {address}: {NO_TOKEN}")
    if not _answers(address, "token"):
        raise ClusterError(f"{RULE}, but got {address}: {WRONG_TOKEN}")


def _found(address: str) -> str:
    """Return the address that `auto` stands for: RAY_ADDRESS, or the last cluster started here.

    Raises:
        ClusterError: there is none.
    """
    if address != "auto":
        return address
    try:
        return canonicalize_bootstrap_address_or_die(address)
    except ConnectionError as error:
        raise ClusterError(
            f"{RULE}, but got auto, and none runs on this machine: start one with `ray start "
            "--head`, or give HOST:PORT of another's head."
        ) from error


def _check_answers(address: str, given: str) -> None:
    """Check that something listens at the address: Ray itself would take minutes to give up."""
    if address.startswith("ray://"):
        raise ClusterError(f"{RULE}, but got {given}: use `ray job submit`.")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"{RULE}, but got {given}: no answer.") from error
