"""Placement: how many workers the machines of a cluster have room for, and how much each takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from igq.costs import Number
from pipeline.errors import ClusterError

THREADS = 1.0
"""CPUs of a worker without a GPU: its sums are then the same on every machine (our choice)."""
WORKER_MEMORY = 1.5 * 2**30
"""Bytes that a worker may take: torch, a model, 512 MiB of activations (measured 0.6 to 1.3)."""


@dataclass(frozen=True)
class Machine:
    """A node of a cluster, as far as workers are concerned.

    >>> Machine("one", cpus=8, gpus=2).name
    'one'
    """

    name: str
    cpus: Number
    gpus: Number = 0.0
    memory: Number = float("inf")
    """Bytes that the cluster may give away."""


@dataclass(frozen=True)
class Share:
    """The part of a machine that a worker takes.

    >>> Share(cpus=1, gpus=0.5).room(Machine("one", cpus=8, gpus=2))
    4
    """

    cpus: Number
    gpus: Number

    def room(self, machine: Machine) -> int:
        """Return how many workers a machine has room for; memory leaves one at least."""
        room = int(machine.cpus / self.cpus)
        if self.gpus:
            return min(room, int(machine.gpus / self.gpus))
        return min(room, max(1, int(min(room, machine.memory / WORKER_MEMORY))))

    @property
    def resources(self) -> Mapping[str, float]:
        """The share in Ray's words."""
        return {"cpu": self.cpus, "gpu": self.gpus}

    @property
    def threads(self) -> int:
        """The threads of a worker."""
        return max(1, int(self.cpus))


def rooms(machines: Iterable[Machine], share: Share) -> dict[str, int]:
    """Return how many workers each machine has room for, without those that have none.

    >>> rooms([Machine("one", 8), Machine("two", 2), Machine("head", 0)], Share(1, 0))
    {'one': 8, 'two': 2}
    """
    found: dict[str, int] = {}
    for machine in machines:
        if room := share.room(machine):
            found[machine.name] = found.get(machine.name, 0) + room
    return found


def share_of(machines: Sequence[Machine], workers: int | None, gpus: Number | None) -> Share:
    """Return the most that each worker can have.

    Args:
        machines: the nodes that are there.
        workers: how many are to run at once; None for as many as there is room for, a thread
            each, or with a GPU an equal part of its machine's CPUs.
        gpus: GPUs of each worker; None for one where any machine has one.

    Raises:
        ClusterError: no machine has room for such a worker.

    >>> machines = [Machine("one", 8, 2), Machine("two", 2, 0)]
    >>> share_of(machines, None, 0.5)
    Share(cpus=2.0, gpus=0.5)
    >>> share_of(machines, 2, 0)
    Share(cpus=4.0, gpus=0)
    """
    most = max((machine.gpus for machine in machines), default=0.0)
    gpus = min(most, 1.0) if gpus is None else gpus
    if gpus > most:
        rule = "`gpus_per_worker` must be at most the GPUs of one machine of the cluster"
        raise ClusterError(f"{rule}, {most:g}, but got {gpus:g}.")
    return _most(machines, gpus) if workers is None else _equal(machines, workers, gpus)


def _most(machines: Sequence[Machine], gpus: Number) -> Share:
    """Return the share with which as many run at once as can."""
    if gpus:
        parts = [(m.cpus, int(m.gpus / gpus)) for m in machines]
        cpus = min(_whole(cpus / count) for cpus, count in parts if count)
    else:
        cpus = min(THREADS, _whole(max((machine.cpus for machine in machines), default=0.0)))
    if cpus == 0:
        raise ClusterError("a cluster must have CPUs for workers, but has none.")
    return Share(cpus, gpus)


def _equal(machines: Sequence[Machine], workers: int, gpus: Number) -> Share:
    """Return the largest share with which so many run at once."""
    slots = [(m.cpus, int(m.gpus / gpus) if gpus else workers) for m in machines]
    wanted = min(workers, sum(room for _, room in slots))
    options = {_whole(cpus / n) for cpus, _ in slots for n in range(1, workers + 1)} - {0.0}
    for cpus in sorted(options, reverse=True):
        if sum(min(int(total / cpus), room) for total, room in slots) >= wanted:
            return Share(cpus, gpus)
    raise ClusterError(f"a cluster must have CPUs for {wanted} workers, but has none.")


def _whole(cpus: Number) -> float:
    """Return an amount that Ray takes: whole above 1, at most four decimals below."""
    return float(int(cpus)) if cpus >= 1 else int(cpus * 1e4) / 1e4
