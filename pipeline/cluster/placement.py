"""Placement: how many workers the machines of a cluster have room for, and how much each takes."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from igq.costs import Number
from pipeline.errors import ClusterError

GB = 1e9
NO_CPUS = "a cluster must have CPUs for workers, but has none."
THREADS = 1.0
"""CPUs of a worker without a GPU, unless memory leaves it more: its sums are then the same on every
machine (our choice)."""


@dataclass(frozen=True)
class WorkerMemory:
    """The bytes that the workers of a study take; none where there is no study.

    >>> WorkerMemory(each=2, correcting=5).room(12, most=8)  # one of 5, three of 2
    4
    """

    each: Number = 0.0
    """Of a worker that runs trials or finds sensitivities."""
    correcting: Number = 0.0
    """Of one that corrects weights, at least as much."""
    corrections: int = 1
    """How many correct weights at once: one for each number of weight bits."""

    def of(self, workers: int) -> Number:
        """Return the most that so many workers take at once: some correct, the others do not."""
        correct = min(workers, self.corrections)
        return correct * self.correcting + (workers - correct) * self.each

    def room(self, memory: Number, most: int) -> int:
        """Return how many workers fit into so many bytes, at most `most`."""
        return bisect_right(range(1, most + 1), memory, key=self.of)


NO_MEMORY = WorkerMemory()
"""The memory of workers that only cores and GPUs bound."""


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

    @classmethod
    def here(cls, memory: Number = float("inf")) -> "Machine":
        """Return this machine, as far as is known without Ray, with so much memory for workers."""
        known = hasattr(os, "sched_getaffinity")
        cpus = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
        return cls("here", cpus, torch.cuda.device_count(), memory)


@dataclass(frozen=True)
class Share:
    """The part of a machine that a worker takes.

    >>> Share(cpus=1, gpus=0.5).room(Machine("one", cpus=8, gpus=2))
    4
    """

    cpus: Number
    gpus: Number
    memory: WorkerMemory = NO_MEMORY
    """The bytes that workers take, as a bound on their number; zeros bound nothing."""

    def room(self, machine: Machine) -> int:
        """Return how many workers a machine has room for, wherever weights are corrected."""
        room = int(machine.cpus / self.cpus)
        if self.gpus:
            room = min(room, int(machine.gpus / self.gpus))
        return self.memory.room(machine.memory, room)

    @property
    def resources(self) -> Mapping[str, float]:
        """The share in Ray's words."""
        return {"cpu": self.cpus, "gpu": self.gpus, "memory": self.memory.each}

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


def share_of(
    machines: Sequence[Machine],
    workers: int | None,
    gpus: Number | None,
    memory: WorkerMemory = NO_MEMORY,
) -> Share:
    """Return the most that each worker can have.

    Args:
        machines: the nodes that are there.
        workers: how many are to run at once; None for as many as there is room for, a thread
            each or, with a GPU or where memory holds fewer, an equal part of a machine's CPUs.
        gpus: GPUs of each worker; None for one where any machine has one.
        memory: the bytes that workers take; not looked at with a GPU.

    Raises:
        ClusterError: no machine has room for such a worker.

    >>> machines = [Machine("one", 8, 2), Machine("two", 2, 0)]
    >>> share_of(machines, None, 0.5)
    Share(cpus=2.0, gpus=0.5, memory=WorkerMemory(each=0.0, correcting=0.0, corrections=1))
    >>> share_of(machines, 2, 0).cpus
    4.0
    >>> share_of([Machine("one", 8, memory=10)], None, 0, WorkerMemory(3, 4)).cpus  # it holds 3
    2.0
    """
    most = max((machine.gpus for machine in machines), default=0.0)
    gpus = min(most, 1.0) if gpus is None else gpus
    if gpus > most:
        rule = "`gpus_per_worker` must be at most the GPUs of one machine of the cluster"
        raise ClusterError(f"{rule}, {most:g}, but got {gpus:g}.")
    if workers is not None:
        return _equal(machines, workers, gpus, NO_MEMORY if gpus else memory)
    return _one_each(machines, gpus) if gpus else _most(machines, memory)


def check_held(workers: int, found: Mapping[str, int], share: Share) -> None:
    """Refuse a number of workers that the memory of a cluster's machines does not hold.

    `found` is machine -> its room for workers of such a share.

    Raises:
        ClusterError: it holds fewer.

    >>> check_held(4, {"one": 3, "two": 1}, Share(1, 0, WorkerMemory(1, 2)))
    """
    room = sum(found.values())
    if share.memory == NO_MEMORY or room >= workers:
        return
    each, first = share.memory.each / GB, share.memory.of(1) / GB
    raise ClusterError(
        f"the machines of the cluster must hold {workers} workers, of which one that corrects "
        f"weights takes {first:.1f} GB and each other {each:.1f} GB, but their memory holds "
        f"{room}: take --workers {room}, or leave it out."
    )


def _one_each(machines: Sequence[Machine], gpus: Number) -> Share:
    """Return the share with which all GPUs are used."""
    parts = [(m.cpus, int(m.gpus / gpus)) for m in machines]
    cpus = min(_whole(cpus / count) for cpus, count in parts if count)
    if cpus == 0:
        raise ClusterError(NO_CPUS)
    return Share(cpus, gpus)


def _most(machines: Sequence[Machine], memory: WorkerMemory) -> Share:
    """Return the share with which as many run at once as cores and memory allow."""
    least = min(THREADS, _whole(max((machine.cpus for machine in machines), default=0.0)))
    if least == 0:
        raise ClusterError(NO_CPUS)
    parts = [(m.cpus, Share(least, 0.0, memory).room(m)) for m in machines]
    found = [_whole(cpus / count) for cpus, count in parts if count]
    if not found:
        raise ClusterError(_holds_none(machines, memory))
    return Share(max(least, min(found)), 0.0, memory)


def _equal(machines: Sequence[Machine], workers: int, gpus: Number, memory: WorkerMemory) -> Share:
    """Return the largest share with which so many run at once, or as many as there is room for."""
    options = {_whole(m.cpus / n) for m in machines for n in range(1, workers + 1)} - {0.0}
    shares = [Share(cpus, gpus, memory) for cpus in sorted(options, reverse=True)]
    if not shares:
        raise ClusterError(f"a cluster must have CPUs for {workers} workers, but has none.")
    most = min(workers, sum(map(shares[-1].room, machines)))  # the smaller, the more have room
    if most == 0:
        raise ClusterError(_holds_none(machines, memory))
    return next(share for share in shares if sum(map(share.room, machines)) >= most)


def _holds_none(machines: Sequence[Machine], memory: WorkerMemory) -> str:
    return (
        f"a machine of the cluster must hold a worker, which takes up to {memory.of(1) / GB:.1f} "
        f"GB, but the largest gives {max(m.memory for m in machines) / GB:.1f} GB: take a smaller "
        "model or fewer images, or give Ray more memory (`ray start --memory BYTES`)."
    )


def _whole(cpus: Number) -> float:
    """Return an amount that Ray takes: whole above 1, at most four decimals below."""
    return float(int(cpus)) if cpus >= 1 else int(cpus * 1e4) / 1e4
