"""A node in a network of its own, whose cable is pulled and put back."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clusters import THIS_CHECKOUT, Head, head, trials_below
from tests.faults.searches import begin, check_sound, until

QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
"""Ray takes a node for dead that does not answer for five seconds, not for half a minute."""


@dataclass(frozen=True)
class Network:
    """A network namespace, and the cable between it and this machine."""

    name: str
    here: str
    """The address of this machine's end of the cable."""
    there: str

    def plug(self, state: str) -> None:
        """Put the cable in (`up`) or pull it (`down`)."""
        run("link", "set", self.name, state)

    @contextlib.contextmanager
    def node(self, cluster: Head, name: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """Give a node of one CPU in the namespace."""
        ray = Path(sys.executable).with_name("ray")
        command = ["ip", "netns", "exec", self.name, str(ray), "start", "--block", "--num-cpus=1"]
        command += [f"--address={cluster.address}", f"--node-ip-address={self.there}"]
        command += [f"--node-name={name}", "--object-store-memory=80000000"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        environment = os.environ | THIS_CHECKOUT | QUICK | {"RAY_AUTH_MODE": "disabled"}
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            until(lambda: "Ray runtime started" in log.read_text(), f"{name} has joined")
            yield process
        finally:
            process.terminate()
            process.wait(60)


def run(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """A namespace; only root can make one."""
    name, third = f"igq{os.getpid() % 10**6}", os.getpid() % 250
    made = Network(name, f"10.213.{third}.1", f"10.213.{third}.2")
    try:
        run("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a network namespace cannot be made here")
    try:
        run("link", "add", name, "type", "veth", "peer", "name", "cable", "netns", name)
        run("address", "add", f"{made.here}/24", "dev", name)
        run("-n", name, "address", "add", f"{made.there}/24", "dev", "cable")
        for device in ("cable", "lo"):
            run("-n", name, "link", "set", device, "up")
        made.plug("up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.faults
def test_a_cable_is_pulled_for_moments_then_until_the_node_counts_as_dead(
    network: Network, space: Path, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(head(tmp_path / "head", 1, network.here, **QUICK))
        far = stack.enter_context(network.node(cluster, "far", tmp_path / "far"))
        search = begin(space, tmp_path / "study", "--cluster", cluster.address)
        search.waits(lambda: bool(trials_below(far.pid)), "trial on the far node")
        search.reaches(2)
        network.plug("down")
        time.sleep(2)
        network.plug("up")
        search.reaches(5)
        assert far.poll() is None  # nobody noticed
        network.plug("down")
        time.sleep(15)
        network.plug("up")
        until(lambda: far.poll() is not None, "the node that counts as dead ends")
        stack.enter_context(network.node(cluster, "again", tmp_path / "again"))
        search.ends()
    check_sound(search, "a node cut off for 2 s, then for 15 s and back")
    found = search.status
    assert found is not None
    assert set(found.trials.nodes or {}) >= {"far"}
