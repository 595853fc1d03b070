"""Machines within this machine: processes, files, home, name and network of their own, and sshd.

Ray's commands end every Ray process that they see, so each machine sees its own alone. All that is
made belongs to the namespaces, and goes with their first processes.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clusters import ROOT, Process, descendants

SCRIPT = Path(__file__).with_name("machine.sh")
PATCHED = SCRIPT.with_name("patched")
HOME = "/home/igq"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHAINED = ["setpriv", "--pdeathsig", "KILL", "--"]
"""Whoever is started so ends with this process, however it ends."""
GATEWAY = "192.0.2.1"
CHECKOUT = "export PYTHONPATH={patched}:{root} IGQ_GATE={gate}\n"
"""A line of each login shell: Python imports this checkout; its trials wait while a gate exists."""
SSHD = "HostKey {key}\nAuthorizedKeysFile .ssh/authorized_keys\nUsePAM no\nPidFile none\n"


@dataclass(frozen=True)
class Machine:
    """A machine, by its first process."""

    name: str
    pid: int

    def processes(self) -> list[Process]:
        return descendants(self.pid)

    def start(self, command: str, folder: Path) -> "subprocess.Popen[str]":
        """Start a command of root's in a folder."""
        enter = ["nsenter", f"--target={self.pid}", "-m", "-u", "-n", "-p", f"--wd={folder}"]
        bare = ["env", "-i", f"HOME={HOME}", f"PATH={PATH}", "USER=root", "TERM=dumb"]
        return subprocess.Popen(
            [*enter, *bare, "bash", "-c", f"source ~/.bashrc; {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, folder: Path, timeout: float) -> str:
        """Run a command of root's in a folder and return what it prints."""
        process = self.start(command, folder)
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{command}: {process.communicate()[0]}") from None
        assert process.returncode == 0, f"{command}: {printed}"
        return printed

    def listens(self, port: int) -> bool:
        """Say whether a process here waits for connections to a port."""
        sockets = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        return any(s.split()[1].endswith(f":{port:04X}") and s.split()[3] == "0A" for s in sockets)

    def ip(self, *arguments: str) -> None:
        in_here = ["nsenter", f"--target={self.pid}", "-n", "ip", *arguments]
        subprocess.run(in_here, check=True, capture_output=True)


@contextlib.contextmanager
def machine(name: str, folder: Path, *shared: Path) -> Iterator[Machine]:
    """Give a machine without a network; everything on it ends afterwards."""
    kept = [sys.prefix, sys.base_prefix, str(ROOT), *map(str, shared)]
    own = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--uts"]
    begin = [str(SCRIPT), name, str(folder / "sshd_config"), str(folder / name), *kept]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen([*CHAINED, "unshare", *own, *begin], stdout=log, stderr=log)
    try:
        yield Machine(name, first_process(process, folder / f"{name}.log"))
    finally:
        process.kill()
        process.wait(30)


def first_process(unshare: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the first process of a machine, once it serves ssh."""
    end = time.monotonic() + 60
    while "Server listening" not in log.read_text():
        assert unshare.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    return descendants(unshare.pid)[0].pid


@contextlib.contextmanager
def network(folder: Path, desk: str, addresses: Mapping[str, str]) -> Iterator[dict[str, Machine]]:
    """Give machines on one network, each with its name and address, and a desk with the key to all.

    `folder` is the same on every machine.
    """
    make_homes(folder, desk, list(addresses))
    with contextlib.ExitStack() as stack:
        begun = {n: stack.enter_context(machine(n, folder, folder)) for n in (desk, *addresses)}
        hub = begun[desk]
        hub.ip("link", "add", "lan", "type", "bridge")
        hub.ip("address", "add", f"{GATEWAY}/24", "dev", "lan")
        hub.ip("link", "set", "lan", "up")
        for name, address in addresses.items():
            connect(hub, begun[name], address)
        yield begun


def make_homes(folder: Path, desk: str, others: list[str]) -> None:
    """Write the homes as they are in the beginning, and what sshd needs."""
    for name in ("host_key", "id_ed25519"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    (folder / "sshd_config").write_text(SSHD.format(key=folder / "host_key"))
    for name in (desk, *others):
        (folder / name / ".ssh").mkdir(parents=True)
        checkout = CHECKOUT.format(patched=PATCHED, root=ROOT, gate=folder / "gate")
        (folder / name / ".bashrc").write_text(checkout)
        public = (folder / "id_ed25519.pub").read_text()
        (folder / name / ".ssh" / "authorized_keys").write_text(public)
    with (folder / desk / ".bashrc").open("a") as own:
        own.write(f"export RAY_AUTH_MODE=token PATH={sys.prefix}/bin:$PATH\n")
    (folder / "id_ed25519").rename(folder / desk / ".ssh" / "id_ed25519")


def connect(hub: Machine, other: Machine, address: str) -> None:
    """Put a cable between the hub's bridge and a machine."""
    ends = ["link", "add", other.name, "type", "veth", "peer", "name", "eth0", "netns"]
    hub.ip(*ends, str(other.pid))
    hub.ip("link", "set", other.name, "master", "lan", "up")
    other.ip("address", "add", f"{address}/24", "dev", "eth0")
    other.ip("link", "set", "eth0", "up")
    other.ip("route", "add", "default", "via", GATEWAY)
