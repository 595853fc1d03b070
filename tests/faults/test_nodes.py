"""Nodes and workers that die, and nodes that join: nothing is lost, nothing runs twice."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.preparation.study import Study
from tests.clusters import Nodes, Process, cluster, trials_below
from tests.faults.searches import begin, check_sound


def workers_of(nodes: Nodes, *names: str) -> list[Process]:
    """The processes in which trials of these nodes run."""
    return trials_below(*(pid for name in names for pid in nodes.processes(name, "raylet")))


def works(nodes: Nodes, name: str) -> bool:
    """Whether a trial is being evaluated on a node."""
    return any("_Inner.train" in worker.command for worker in workers_of(nodes, name))


@pytest.mark.faults
def test_a_node_dies_and_another_joins_late(space: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with cluster({"IGQ_GATE": str(gate)}, one=1, two=1) as nodes:
        search = begin(space, tmp_path / "study", "--cluster", nodes.address)
        search.reaches(3)
        gate.touch()
        nodes.kill("two")
        nodes.add("late", cpus=2)
        search.waits(lambda: works(nodes, "late"), "trial on the late node")
        gate.unlink()
        printed = search.ends()
    check_sound(search, "a node killed, another joins late")
    found = search.status
    assert found is not None
    assert set(found.trials.nodes or {}) >= {"one", "late"}
    assert "Trials ran on" in printed
    assert "late" in printed


@pytest.mark.faults
def test_workers_killed_in_mid_trial(nodes: Nodes, space: Path, tmp_path: Path) -> None:
    search = begin(space, tmp_path / "study", "--cluster", nodes.address)
    for ended in (2, 8):
        search.reaches(ended)
        for worker in workers_of(nodes, "one", "two"):
            os.kill(worker.pid, signal.SIGKILL)
    search.ends()
    check_sound(search, "workers killed in mid-trial, twice")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("trouble", "becomes", "reason"),
    [
        ("raise", "raises", "MemoryError: no room for 1 PiB"),
        ("kill", "takes its worker with it, as one out of memory", "ActorDied"),
    ],
    ids=["raises", "is killed"],
)
def test_a_trial_that_always_goes_wrong_is_recorded_once(
    tmp_path: Path, space: Path, trouble: str, becomes: str, reason: str
) -> None:
    with cluster({"IGQ_TROUBLE": trouble}, one=2) as own:
        search = begin(space, tmp_path / "study", "--cluster", own.address)
        search.ends()
    check_sound(search, f"a trial that always {becomes}", failed=1)
    (failed,) = (t for t in Study.open(search.folder).trials() if t.error)
    assert reason in (failed.error or "")


@pytest.mark.faults
def test_the_head_dies_and_another_cluster_goes_on(space: Path, tmp_path: Path) -> None:
    with cluster(one=1, two=1) as nodes:
        search = begin(space, tmp_path / "study", "--cluster", nodes.address)
        search.reaches(3)
        nodes.kill_head()
        printed = search.ends(code=2)
        assert "the head of a cluster must stay" in printed
    with cluster(three=2) as nodes:
        search = begin(space, search.folder, "--cluster", nodes.address, "--resume")
        search.ends()
    check_sound(search, "head killed; resumed on another cluster")
