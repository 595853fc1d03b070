"""Ray clusters of several nodes on this machine, as processes of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
THIS_CHECKOUT = {
    "PYTHONPATH": f"{ROOT / 'tests' / 'here'}{os.pathsep}{ROOT}",
    "RAY_worker_niceness": "0",  # Ray's workers give way to all else, which may be other tests
}
"""Workers and commands run the checkout that the tests are of, not the installed one."""
STORE = 80_000_000
"""Bytes of a node's object store: the smallest that Ray takes is 75 MB."""


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: str


def processes() -> list[Process]:
    """Every process that runs on this machine; the dead that wait for their parent left out."""
    columns = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    lines = subprocess.run(columns, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(maxsplit=3) for line in lines]
    return [Process(int(r[0]), int(r[1]), r[3]) for r in rows if len(r) == 4 and r[2][0] != "Z"]


def descendants(*pids: int) -> list[Process]:
    """The processes that some have started, and those that they have started."""
    everyone, found, parents = processes(), [], set(pids)
    while parents:
        children = [process for process in everyone if process.parent in parents]
        found += children
        parents = {process.pid for process in children}
    return found


def trials_below(*pids: int) -> list[Process]:
    """The processes in which trials of some raylets run, at work or idle.

    Ray names one that is idle for our class, and one at work for `_Inner`, which Tune makes of it.
    Other clusters of this machine have the like, so the name alone would not do.
    """
    names = ("ray::IgqTrial", "ray::_Inner")
    return [process for process in descendants(*pids) if process.command.startswith(names)]


@dataclass(frozen=True)
class Head:
    """A cluster of one node that `ray start` keeps until it is told to end."""

    address: str
    process: "subprocess.Popen[bytes]"

    def workers(self) -> list[Process]:
        """The processes in which its trials run, and no other cluster's."""
        return trials_below(self.process.pid)


@contextlib.contextmanager
def head(log: Path, cpus: int, address: str = "127.0.0.1", **environment: str) -> Iterator[Head]:
    """Give a cluster of one node as a command starts it; it ends afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"]
    command += ["--include-dashboard=false", "--object-store-memory=200000000"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # another cluster has Ray's own
    command.append(f"--node-ip-address={address}")
    set_ = os.environ | THIS_CHECKOUT | {"RAY_AUTH_MODE": "disabled"} | environment
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=set_)
    try:
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield Head(f"{address}:{port}", process)
    finally:
        process.terminate()
        process.wait(30)


@dataclass
class Nodes:
    """The nodes of a cluster; the head has no CPUs unless it is alone."""

    cluster: Any
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, name: str, cpus: int = 1) -> None:
        """Start a node and wait until it has joined."""
        args = {"num_cpus": cpus, "node_name": name, "object_store_memory": STORE}
        self.made[name] = self.cluster.add_node(**args)

    def kill(self, name: str) -> None:
        """Kill a node's raylet with -9; its workers die with it."""
        for process in self.processes(name, "raylet"):
            os.kill(process, signal.SIGKILL)

    def kill_head(self) -> None:
        """Kill the process that holds the cluster together."""
        for process in self.processes("head", "gcs_server"):
            os.kill(process, signal.SIGKILL)

    def processes(self, name: str, kind: str) -> list[int]:
        """Return the numbers of a node's processes of a kind, `raylet` or `gcs_server`."""
        return [info.process.pid for info in self.made[name].all_processes[kind]]


@contextlib.contextmanager
def cluster(environment: Mapping[str, str] | None = None, **cpus: int) -> Iterator[Nodes]:
    """Give a cluster with a node for each name, with so many CPUs; all end afterwards."""
    from ray.cluster_utils import Cluster

    fixed = {**THIS_CHECKOUT, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    environment = {**fixed, **(environment or {})}
    with mock.patch.dict(os.environ, environment):
        args = {"num_cpus": 0, "node_name": "head", "object_store_memory": STORE}
        made = Cluster(initialize_head=True, head_node_args=args | {"include_dashboard": False})
        nodes = Nodes(made, {"head": made.head_node})
        try:
            for name, count in cpus.items():
                nodes.add(name, count)
            yield nodes
        finally:
            for node in nodes.made.values():  # Ray's own way takes half a minute for each
                node.kill_all_processes(check_alive=False, allow_graceful=False)


def igq(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a command of igq, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | THIS_CHECKOUT | {"RAY_AUTH_MODE": "disabled"} | environment,
        start_new_session=True,
    )
