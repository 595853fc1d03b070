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
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("times", [1, 2])
def test_a_search_ends_by_a_signal_and_goes_on(
    nodes: Nodes, space: Path, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    if number is signal.SIGKILL and times == 2:
        pytest.skip("nobody dies twice")
    search = begin(space, tmp_path / "study", "--cluster", nodes.address)
    search.reaches(4)
    told = time.monotonic()
    for _ in range(times):
        os.killpg(search.process.pid, number)
        time.sleep(0.1)
    printed = search.ends(CODES[number])
    assert time.monotonic() - told < 15
    assert "Traceback" not in printed
    if number is not signal.SIGKILL:
        assert "To go on: igq search" in printed.splitlines()[-1]
    found = search.status
    assert found is not None
    assert found.phase == "stopped"

    again = begin(space, search.folder, "--cluster", nodes.address, "--resume")
    again.ends()
    check_sound(again)
