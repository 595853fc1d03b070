"""Signals: the first ends a command in its own way, the second at once; one line says so."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.signals import catching_signals, stopping

ROOT = Path(__file__).resolve().parents[3]
COMMAND = """
import sys, time
from pipeline.cli.signals import stopping
import importlib; command = importlib.import_module("pipeline.cli.app")
def work():
    stopping.to_go_on = "igq search demo --resume"
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        time.sleep(max(0, {cleanup}))
        if {cleanup} < 0:
            raise FileNotFoundError("a lock that was being released")
        print("cleaned up", flush=True)
command.app.command("work")(work)
sys.argv = ["igq", "work"]
command.main()
"""
LINE = ". To go on: igq search demo --resume"


@pytest.fixture
def working(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A command that works, and that takes `request.param` seconds to clean up."""
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(cleanup=request.param)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "working\n"
    yield run
    run.kill()
    run.communicate()


@pytest.mark.parametrize("working", [0], indirect=True)
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "Interrupted"),
        (signal.SIGTERM, 143, "Terminated"),
        (signal.SIGHUP, 129, "Hung up"),
    ],
)
def test_one_signal_cleans_up_and_says_so_in_a_line(
    working: subprocess.Popen[str], number: signal.Signals, code: int, word: str
) -> None:
    working.send_signal(number)
    out, err = working.communicate(timeout=10)
    assert (working.returncode, out, err) == (code, "cleaned up\n", f"{word}{LINE}\n")


@pytest.mark.parametrize("working", [0], indirect=True)
def test_a_terminal_that_is_gone_is_no_error(working: subprocess.Popen[str]) -> None:
    assert working.stderr is not None
    working.stderr.close()
    working.stderr = None
    working.send_signal(signal.SIGHUP)
    out, _ = working.communicate(timeout=10)
    assert (working.returncode, out) == (129, "cleaned up\n")


def test_nohup_goes_on_after_its_terminal_was_closed() -> None:
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catching_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not stopping.asked
    finally:
        signal.signal(signal.SIGHUP, kept)


@pytest.mark.parametrize("working", [-1], indirect=True)
def test_an_error_that_the_signal_caused_is_no_error(working: subprocess.Popen[str]) -> None:
    working.send_signal(signal.SIGINT)
    out, err = working.communicate(timeout=10)
    assert (working.returncode, out, err) == (130, "", f"Interrupted{LINE}\n")


@pytest.mark.parametrize("working", [60], indirect=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(
    working: subprocess.Popen[str], number: signal.Signals, code: int
) -> None:
    start = time.monotonic()
    working.send_signal(number)
    time.sleep(0.3)
    working.send_signal(number)
    out, err = working.communicate(timeout=10)
    assert (working.returncode, out) == (code, "")
    assert err.endswith(f"{LINE}\n")
    assert time.monotonic() - start < 5


@pytest.mark.slow
@pytest.mark.parametrize("working", [60], indirect=True)
def test_a_command_that_does_not_end_after_sigterm_is_ended_within_ten_seconds(
    working: subprocess.Popen[str],
) -> None:
    start = time.monotonic()
    working.send_signal(signal.SIGTERM)
    out, err = working.communicate(timeout=20)
    assert (working.returncode, out, err) == (143, "", f"Terminated{LINE}\n")
    assert time.monotonic() - start < 10
