"""Placement: workers for every GPU or core, and no more."""

import pytest

from pipeline.cluster.placement import WORKER_MEMORY, Machine, Share, rooms, share_of
from pipeline.errors import ClusterError

HEAD = Machine("head", 0)
SMALL, LARGE = Machine("small", 2), Machine("large", 16)
ONE_GPU, FOUR_GPUS = Machine("one gpu", 8, 1), Machine("four gpus", 16, 4)


def placed(
    machines: list[Machine], workers: int | None = None, gpus: float | None = None
) -> dict[str, int]:
    return rooms(machines, share_of(machines, workers, gpus))


@pytest.mark.parametrize(
    ("machines", "gpus", "expected"),
    [
        ([SMALL], None, {"small": 2}),
        ([HEAD, SMALL, LARGE], None, {"small": 2, "large": 16}),
        ([HEAD, ONE_GPU, FOUR_GPUS], None, {"one gpu": 1, "four gpus": 4}),
        ([ONE_GPU, FOUR_GPUS], 0.25, {"one gpu": 4, "four gpus": 16}),
        ([ONE_GPU, FOUR_GPUS], 2, {"four gpus": 2}),
        ([SMALL, ONE_GPU], None, {"one gpu": 1}),
        ([SMALL, ONE_GPU], 0, {"small": 2, "one gpu": 8}),
        ([Machine("half", 0.5)], None, {"half": 1}),
    ],
    ids=["one machine", "cores", "GPUs", "fractions", "two each", "unlike", "no GPU", "half a CPU"],
)
def test_without_a_number_all_of_a_cluster_is_used(
    machines: list[Machine], gpus: float | None, expected: dict[str, int]
) -> None:
    assert placed(machines, gpus=gpus) == expected


def test_memory_bounds_workers_but_leaves_one() -> None:
    narrow, tiny = Machine("narrow", 8, memory=3 * WORKER_MEMORY), Machine("tiny", 8, memory=1)
    assert placed([narrow, tiny]) == {"narrow": 3, "tiny": 1}


def test_workers_without_a_gpu_have_one_thread_whatever_the_machine() -> None:
    assert {share_of([m], None, None).threads for m in (SMALL, LARGE)} == {1}


def test_workers_of_a_gpu_share_their_machine_s_cores() -> None:
    assert share_of([ONE_GPU, FOUR_GPUS], None, None) == Share(4.0, 1.0)


def test_a_number_of_workers_shares_out_all_cores() -> None:
    assert share_of([LARGE], 4, None) == Share(4.0, 0.0)
    assert share_of([SMALL, LARGE], 3, 0) == Share(5.0, 0)
    assert share_of([SMALL], 8, None) == Share(0.25, 0.0)


def test_a_node_that_joins_later_has_room_by_the_share_that_was_settled() -> None:
    share = share_of([SMALL], None, None)
    assert rooms([SMALL, LARGE], share) == {"small": 2, "large": 16}


@pytest.mark.parametrize("workers", [None, 2])
def test_a_cluster_without_cores_is_refused(workers: int | None) -> None:
    with pytest.raises(ClusterError, match="must have CPUs"):
        share_of([HEAD], workers, None)
