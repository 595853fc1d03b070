"""The nodes of the connected cluster: what they have, how they are called, what runs on them."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.placement import Machine
from pipeline.errors import ClusterError
from pipeline.versions import versions

CHECK_SECONDS = 60.0
"""Within which a node may tell its versions."""
Versions = Mapping[str, str]
"""Package -> version, of what a driver and its workers must agree in beside Python and Ray."""


def machines() -> list[Machine]:
    """Return the nodes that are alive."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            memory = has.get("memory", float("inf"))
            found.append(Machine(_name(node), has.get("CPU", 0.0), has.get("GPU", 0.0), memory))
    return found


def own_name() -> str:
    """Return the name of the node that this worker runs on."""
    identity = ray.get_runtime_context().get_node_id()
    return next((_name(node) for node in ray.nodes() if node["NodeID"] == identity), "")


def check_versions(name: str, found: Versions | None, wanted: Versions) -> None:
    """Refuse a node whose packages are others than the driver's.

    Raises:
        ClusterError: with both versions.

    >>> check_versions("two", {"torch": "2.9.0"}, {"torch": "2.10.0"})
    ... # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    pipeline.errors.ClusterError: a cluster must have the driver's torch 2.10.0 on every node, but
    two has 2.9.0: install the same there, or leave the node out.
    """
    for package, mine in wanted.items():
        its = "one that cannot be imported" if found is None else found.get(package, "none")
        if its != mine:
            raise ClusterError(
                f"a cluster must have the driver's {package} {mine} on every node, but {name} has "
                f"{its}: install the same there, or leave the node out."
            )


def check_nodes(wanted: Versions) -> None:
    """Ask every node that has CPUs for its versions, before any work is sent there.

    Raises:
        ClusterError: a node has other versions than the driver, or none.
    """
    asked: dict[Any, str] = {}
    told = ray.remote(num_cpus=0, max_retries=0)(versions)
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            only = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[told.options(scheduling_strategy=only).remote()] = _name(node)
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=CHECK_SECONDS)
    for answer in answered:
        check_versions(asked[answer], _answered(answer), wanted)


def _answered(answer: Any) -> Versions | None:
    """Return what a node said; None where it cannot even import igq, or has gone meanwhile."""
    try:
        found: Versions = ray.get(answer)
    except RayError:
        return None
    return found


def _name(node: Mapping[str, Any]) -> str:
    """Return the name that a node was started with, otherwise its host's."""
    named, address = node.get("NodeName"), node["NodeManagerAddress"]
    return str(named if named and named != address else node["NodeManagerHostname"])
