"""Placement: workers for every GPU or core, and no more."""

from dataclasses import replace

import pytest

from pipeline.cluster.placement import (
    NO_MEMORY,
    Machine,
    Share,
    WorkerMemory,
    check_held,
    rooms,
    share_of,
)
from pipeline.errors import ClusterError

HEAD = Machine("head", 0)
SMALL, LARGE = Machine("small", 2), Machine("large", 16)
ONE_GPU, FOUR_GPUS = Machine("one gpu", 8, 1), Machine("four gpus", 16, 4)
LARGE_MODEL = WorkerMemory(each=5.5e9, correcting=13e9)


def placed(
    machines: list[Machine],
    workers: int | None = None,
    gpus: float | None = None,
    memory: WorkerMemory = NO_MEMORY,
) -> dict[str, int]:
    return rooms(machines, share_of(machines, workers, gpus, memory))


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


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [(12.9, 0), (13, 1), (18.4, 1), (18.5, 2), (24, 3), (95.5, 16), (500, 16)],
)
def test_a_machine_holds_a_correction_and_workers_that_do_not_correct(
    gigabytes: float, expected: int
) -> None:
    assert LARGE_MODEL.room(gigabytes * 1e9, most=16) == expected


def test_each_number_of_weight_bits_is_corrected_beside_the_others() -> None:
    three = replace(LARGE_MODEL, corrections=3)
    assert [three.room(size * 1e9, most=16) for size in (26, 38, 39, 50)] == [2, 2, 3, 5]


def test_memory_bounds_workers_of_each_machine_by_the_study() -> None:
    narrow, wide = Machine("narrow", 8, memory=24e9), Machine("wide", 8, memory=100e9)
    tiny = Machine("tiny", 8, memory=6e9)
    assert placed([narrow, wide, tiny], memory=LARGE_MODEL) == {"narrow": 3, "wide": 8}
    assert placed([narrow, wide, tiny]) == {"narrow": 8, "wide": 8, "tiny": 8}


def test_workers_that_memory_leaves_share_out_all_cores() -> None:
    machine = Machine("narrow", 8, memory=24e9)
    share = share_of([machine], None, None, LARGE_MODEL)
    assert (share.threads, share.room(machine)) == (2, 3)


def test_machines_that_hold_no_worker_are_refused() -> None:
    small = [Machine("one", 8, memory=4e9), Machine("two", 8, memory=8e9)]
    with pytest.raises(
        ClusterError,
        match=r"must hold a worker, which takes up to 13\.0 GB, but the largest gives 8\.0 GB: ",
    ):
        share_of(small, None, None, LARGE_MODEL)


def test_workers_with_gpus_are_not_bounded_by_memory() -> None:
    small = Machine("small", 8, 2, memory=4e9)
    assert placed([small], gpus=1, memory=LARGE_MODEL) == {"small": 2}
    assert placed([small], workers=4, gpus=0.5, memory=LARGE_MODEL) == {"small": 4}


def test_a_number_of_workers_goes_where_memory_holds_them() -> None:
    narrow, wide = Machine("narrow", 16, memory=20e9), Machine("wide", 4, memory=100e9)
    share = share_of([narrow, wide], 6, 0, LARGE_MODEL)
    assert (share.cpus, rooms([narrow, wide], share)) == (1.0, {"narrow": 2, "wide": 4})
    assert share_of([narrow, wide], 6, 0).cpus == 3.0  # five of `narrow`, one of `wide`


def test_more_workers_than_memory_holds_are_refused_with_the_number_that_it_does() -> None:
    narrow = Machine("narrow", 8, memory=24e9)
    share = share_of([narrow], 4, 0, LARGE_MODEL)
    check_held(3, rooms([narrow], share), share)
    with pytest.raises(
        ClusterError,
        match=r"must hold 4 workers, of which one that corrects weights takes 13\.0 GB and each "
        r"other 5\.5 GB, but their memory holds 3: take --workers 3, or leave it out\.",
    ):
        check_held(4, rooms([narrow], share), share)


def test_fewer_gpus_than_workers_are_no_matter_of_memory() -> None:
    share = share_of([ONE_GPU], 4, 1, LARGE_MODEL)
    check_held(4, rooms([ONE_GPU], share), share)


def test_a_number_of_workers_on_machines_that_hold_none_is_refused() -> None:
    with pytest.raises(ClusterError, match="must hold a worker, which takes up to"):
        share_of([Machine("one", 8, memory=4e9)], 2, 0, LARGE_MODEL)


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
