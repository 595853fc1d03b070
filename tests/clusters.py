"""Ray clusters of several nodes on this machine, as processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
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
