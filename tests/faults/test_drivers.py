"""Drivers that are killed or told to end: a study is whole at any time, and goes on."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.clusters import Nodes
from tests.faults.searches import begin, check_sound

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "times"),
    [(number, times) for number in CODES for times in (1, 2)][:-1],  # nobody dies twice
    ids=lambda value: getattr(value, "name", value),
)
def test_a_search_ends_by_a_signal_and_goes_on(
    nodes: Nodes, space: Path, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    search = begin(space, tmp_path / "study", "--cluster", nodes.address)
    search.reaches(4)
    told = time.monotonic()
    for _ in range(times):
        os.killpg(search.process.pid, number)
        time.sleep(0.1)
    printed = search.ends(CODES[number])
    took = time.monotonic() - told
    assert took < 10
    assert "Traceback" not in printed
    if number is not signal.SIGKILL:
        assert "To go on: igq search" in printed.splitlines()[-1]
    found = search.status
    assert found is not None
    assert found.phase == "stopped"

    again = begin(space, search.folder, "--cluster", nodes.address, "--resume")
    again.ends()
    how = "once" if times == 1 else "twice"
    check_sound(again, f"driver told {number.name} {how}, ended in {took:.0f} s; resumed")
