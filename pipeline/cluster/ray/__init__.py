"""Workers of a Ray cluster. The one door to Ray."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ray import cloudpickle

from igq import InvalidArgumentError
from igq.progress import Progress
from pipeline.cluster.feed import ProposalFeed
from pipeline.cluster.placement import (
    NO_MEMORY,
    Machine,
    Share,
    WorkerMemory,
    check_held,
    rooms,
    share_of,
)
from pipeline.cluster.ray.joining import connected
from pipeline.cluster.ray.nodes import Versions, check_nodes, machines
from pipeline.cluster.ray.parts import parts_on_ray
from pipeline.cluster.ray.tuning import RETRIES, run_trials
from pipeline.cluster.ray.watching import watched
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Part
from pipeline.versions import versions

__all__ = ["RETRIES", "RayCluster"]


@dataclass(frozen=True)
class RayCluster:
    """Workers that Ray Tune keeps busy, each of them a process with a share of a machine.

    >>> RayCluster(workers=4).address is None  # Ray is started on this machine
    True
    """

    address: str | None = None
    """None: start Ray on this machine. Otherwise join: `auto`, the cluster that this machine is
    part of, or the `host:port` of its head."""
    workers: int | None = None
    """How many trials run at once. None: as many as there is room for, while nodes come and go:
    one for each GPU or fraction of it, otherwise one for each CPU, if memory holds as many."""
    gpus_per_worker: float | None = None
    """Fractions share a GPU. None: one GPU each where the cluster has any, otherwise none."""
    memory: WorkerMemory = NO_MEMORY
    """The memory that bounds workers; that of a number given for this machine is zero."""
    left: int | None = None
    """Bytes for workers where Ray is started on this machine; None: Ray's own estimate."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InvalidArgumentError(f"`workers` must be at least 1, but got {self.workers}.")
        gpus = self.gpus_per_worker or 0
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise InvalidArgumentError(f"`gpus_per_worker` must be whole above 1, but got {gpus}.")

    def check(self) -> None:
        """Join the cluster and leave it again; one that `run` starts here needs no check.

        Raises:
            ClusterError: it cannot be joined, has no room, or a node has other versions.
        """
        if self.address is not None:
            self.placed(versions())

    @property
    def workers_here(self) -> int:
        """The workers asked for on this machine, one at least; none where a cluster is joined."""
        return 0 if self.address is not None else self.workers or 1

    def holding(self, memory: WorkerMemory, left: int | None) -> Self:
        """Return the cluster with no more workers than fit into memory.

        A number given stays: for this machine it was looked at before, and a cluster that has not
        the memory for so many is refused.

        Raises:
            ClusterError: the cluster holds none, or too few, or it cannot be reached.
        """
        if self.workers is not None and self.address is None:
            return self
        most = int(memory.of(int(Machine.here().cpus)))  # more is not needed, and Ray takes no None
        held = replace(self, memory=memory, left=most if left is None else min(left, most))
        held.placed()
        return held

    def count(self) -> int:
        """Return how many parts of work are computed at once, as far as is known before Ray starts.

        Raises:
            ClusterError: the cluster cannot be asked.
        """
        return self.workers or max(1, sum(self.placed()[0].values()))

    def placed(self, wanted: Versions | None = None) -> tuple[Mapping[str, int], Share]:
        """Return the workers that each machine has room for now, and what each worker takes.

        `wanted` are the versions that every node of a cluster must have; None does not ask them.

        Raises:
            ClusterError: the cluster cannot be asked, has no room or too little memory, or a node
                has other versions.
        """
        if self.address is None:
            there = [Machine.here(float("inf") if self.left is None else self.left)]
        else:
            with connected(self.address):
                there = machines()
                self._share(there)  # before a node is asked: one that is too small needs no answer
                if wanted is not None:
                    check_nodes(wanted)
        share = self._share(there)
        found = rooms(there, share)
        if self.address is not None and self.workers is not None:
            check_held(self.workers, found, share)
        return found, share

    @property
    def where(self) -> str:
        """The workers, in words."""
        if self.workers is None:
            return "workers of Ray"
        return f"{self.workers} worker{'s' * (self.workers > 1)} of Ray"

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its result as it ends; a part whose worker died runs again."""
        with connected(self.address, len(cloudpickle.dumps(shared)), self.left) as connection:
            share = self._share(machines())
            with watched(lambda: self.room(share), connection.lost) as watch:
                yield from parts_on_ray(shared, parts, watch, share, progress)

    def run(self, task: Task, feed: ProposalFeed) -> None:
        """Evaluate proposals, `workers` at a time, until there are no more."""
        with connected(self.address, len(cloudpickle.dumps(task)), self.left) as connection:
            share = self._share(machines())
            with watched(lambda: self.room(share), connection.lost) as watch:
                run_trials(task, feed, share, watch)

    def room(self, share: Share) -> int:
        """Return how many trials may run at once on the connected cluster, as it is now."""
        room = sum(rooms(machines(), share).values())
        return room if self.workers is None else min(self.workers, room)

    def _share(self, there: list[Machine]) -> Share:
        return share_of(there, self.workers, self.gpus_per_worker, self.memory)
