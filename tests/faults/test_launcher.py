"""`ray_cluster.yaml` from `ray up` to `ray down`, on machines made within this one."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.commands.studies.status import status
from tests.clusters import ROOT
from tests.faults.machines import Machine, network
from tests.faults.searches import PATIENCE, until

TRIALS = 12
NODES = ("head", "one", "two")
SETUP = 3
"""Commands that make a machine's environment; those after them are run as shipped."""


def missing() -> str | None:
    """Name what this test needs and is not here."""
    extra = ("aiohttp_cors", "opencensus", "prometheus_client", "virtualenv")
    if os.geteuid() != 0:
        return "only root can make namespaces"
    for command in ("unshare", "nsenter", "setpriv", "ip", "ssh", "rsync", "/usr/sbin/sshd"):
        if shutil.which(command) is None:
            return f"`{command}` is not installed (openssh-server, rsync, iproute2, util-linux)"
    if subprocess.run(["unshare", "-n", "-m", "-p", "-u", "-f", "true"], check=False).returncode:
        return "namespaces cannot be made here"
    if any(importlib.util.find_spec(name) is None for name in extra):
        return "Ray's dashboard is not installed: pip install -e '.[cluster]'"
    return None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the cluster file as someone edits it, and with an environment that is there."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path / "project"
    (folder / "dist").mkdir(parents=True)
    shutil.copy(ROOT / "constraints.txt", folder / "dist")
    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    config["auth"]["ssh_user"] = "root"
    config["setup_commands"][:SETUP] = [f"ln -sfn {sys.prefix} ~/igq"]
    (folder / "ray_cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


@pytest.fixture
def machines(project: Path) -> Iterator[dict[str, Machine]]:
    """A desk, and the machines that the cluster file names."""
    provider = yaml.safe_load((project / "ray_cluster.yaml").read_text())["provider"]
    addresses = [provider["head_ip"], *provider["worker_ips"]]
    with network(project.parent, "desk", dict(zip(NODES, addresses, strict=True))) as made:
        yield made


def ray_processes(machines: dict[str, Machine]) -> list[str]:
    """The processes of Ray on every machine, a line each.

    Log monitors are left out: on workers they stay after `ray down`, until `ray stop`.
    """
    everyone = [(name, p.command) for name, one in machines.items() for p in one.processes()]
    words = ("ray::", "/raylet", "gcs_server", "ray/autoscaler", "ray/_private", "ray/dashboard")
    running = [(name, line) for name, line in everyone if any(word in line for word in words)]
    return [f"{name}: {line}" for name, line in running if "log_monitor" not in line]


def everywhere(machines: dict[str, Machine]) -> bool:
    """Say whether a trial runs on every node."""
    found = [[p.command for p in machines[name].processes()] for name in NODES]
    return all(any(line.startswith("ray::_Inner.train") for line in lines) for lines in found)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_up_submit_and_down_as_the_file_says(machines: dict[str, Machine], project: Path) -> None:
    desk = machines["desk"]

    def ray(command: str) -> str:
        return desk.run(f"ray {command}", project, PATIENCE)

    ray("get-auth-token --generate")
    ray("up --yes ray_cluster.yaml")
    cpus = f"0.0/{float((os.cpu_count() or 1) * len(NODES))} CPU"
    until(lambda: cpus in ray("exec ray_cluster.yaml 'ray status'"), "every machine has joined")
    desk.start("ray dashboard ray_cluster.yaml > dashboard.log", project)
    until(lambda: desk.listens(8265), "the dashboard's port is forwarded")
    (project.parent / "gate").touch()
    search = f"igq search demo --cluster auto --trials {TRIALS} --no-rivals --engine eager"
    study = project.parent / "shared" / "demo"
    address = "--address http://127.0.0.1:8265"
    job = desk.start(f"ray job submit {address} -- {search} --out {study}", project)
    until(lambda: job.poll() is not None or everywhere(machines), "trials everywhere", 3 * PATIENCE)
    (project.parent / "gate").unlink()
    printed, _ = job.communicate(timeout=2 * PATIENCE)
    assert job.returncode == 0, printed
    found = status(study)
    assert found.trials.ended == TRIALS, printed
    assert set(found.trials.nodes or {}) == set(NODES), printed
    ray("down --yes ray_cluster.yaml")
    until(lambda: not ray_processes(machines), "every process of Ray has ended", 2 * PATIENCE)
    for name in NODES:  # a log monitor of each worker is left, and ends with this
        machines[name].run("~/igq/bin/ray stop", project, PATIENCE)
    assert not any("log_monitor" in p.command for one in machines.values() for p in one.processes())
