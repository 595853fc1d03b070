"""Memory that a machine has or has not: a search that cannot be held is refused beforehand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import pipeline
from pipeline.cluster.ray import RayCluster
from pipeline.commands.studies.plan import Means, plan
from pipeline.commands.studies.search import run
from pipeline.errors import StudyError
from pipeline.forecast.resources import (
    Resources,
    check_memory,
    memory_left,
    memory_taken,
    memory_there,
)
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Request
from search_spaces import ModelSpec

GB = 10**9
NEEDED = Resources(
    driver=2 * GB,
    worker=4 * GB,
    further=3 * GB,
    memory_left=None,
    memory_there=11 * GB,
    disk=0,
    disk_left=None,
)
PLACE = "pipeline.forecast.resources"


def test_as_many_workers_as_fit_are_named() -> None:
    check_memory(NEEDED, workers=2)
    with pytest.raises(
        StudyError,
        match=r"^this machine must hold the search, which takes about 2\.0 GB and 4\.0 GB for the "
        r"first of 3 workers, 3\.0 GB for each other, but has 11\.0 GB: take --workers 2\.$",
    ):
        check_memory(NEEDED, workers=3)


def test_each_number_of_weight_bits_is_corrected_at_once() -> None:
    several = replace(NEEDED, corrections=2)
    check_memory(replace(several, memory_there=10 * GB), workers=2)
    with pytest.raises(StudyError, match=r"4\.0 GB for each of the first 2 of 3 .* --workers 2\.$"):
        check_memory(several, workers=3)


def test_workers_have_what_this_process_leaves_of_free_memory_but_one_has_enough() -> None:
    left = {size: replace(NEEDED, memory_left=size).for_workers for size in (9 * GB, 3 * GB, None)}
    assert left == {9 * GB: 7 * GB, 3 * GB: 4 * GB, None: None}


def test_where_none_fits_another_machine_is_named() -> None:
    with pytest.raises(StudyError, match=r"has 5\.0 GB: take a smaller model .* or --cluster"):
        check_memory(replace(NEEDED, memory_there=5 * GB), workers=1)


def test_a_system_that_tells_nothing_refuses_nothing() -> None:
    check_memory(replace(NEEDED, memory_there=None), workers=99)


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 8192), ("4096\n", 4096), ("9999", 8192)])
def test_a_container_has_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:   8 kB\nMemAvailable:   3 kB\n")
    (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(f"{PLACE}.MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(f"{PLACE}.LIMIT", tmp_path / "limit")
    assert memory_there() == expected


def test_free_memory_is_what_this_process_has_and_may_still_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:   8 kB\nMemAvailable:   3 kB\n")
    monkeypatch.setattr(f"{PLACE}.MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(f"{PLACE}.LIMIT", tmp_path / "none")
    for own, expected in ((2, 5), (6, 8)):
        monkeypatch.setattr(f"{PLACE}.memory_taken", lambda own=own: 1024 * own)
        assert memory_left() == 1024 * expected


def test_a_model_that_is_too_large_is_refused_before_it_is_made(
    make_request: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request()
    model = ModelSpec(name="vit_huge_patch14_224")
    huge = replace(request, space=request.space.model_copy(update={"model": model}))
    monkeypatch.setattr(f"{PLACE}.memory_there", lambda: memory_taken() + 2 * GB)
    before = memory_taken()
    with pytest.raises(StudyError, match=r"3 copies of vit_huge_patch14_224, .* 631 million"):
        plan(huge)
    assert memory_taken() < before + GB // 2


def test_plan_and_search_refuse_before_anything_is_written(
    make_request: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request()
    monkeypatch.setattr("pipeline.forecast.probe.EACH", 0.02)
    monkeypatch.setattr(f"{PLACE}.memory_there", lambda: GB)
    with pytest.raises(StudyError, match="this machine must hold"):
        plan(request, Means(workers=1))
    with pytest.raises(StudyError, match="this machine must hold"):
        run(request, pipeline.InProcess(), pipeline.InMemoryTracker(), SilentDisplay())
    assert not request.out.exists()


def test_a_search_has_as_many_workers_as_its_plan_says(
    make_request: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for two workers of eight cores; a number that is given stays."""
    monkeypatch.setattr("pipeline.forecast.probe.EACH", 0.02)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    request = make_request()
    needed = plan(request).resources
    free = needed.driver + needed.of_workers.of(2) + needed.further // 2
    monkeypatch.setattr(f"{PLACE}.memory_left", lambda: free)
    workers = plan(request).workers
    assert (workers.count, workers.threads, workers.held) == (2, 4, True)
    assert not plan(request, Means(workers=1)).workers.held
    found: list[RayCluster] = []

    def stop(study: object, display: object, cluster: RayCluster) -> None:
        found.append(cluster)
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.commands.studies.search.prepare", stop)
    for cluster, name in ((RayCluster(), "a"), (RayCluster(workers=3), "b")):
        again = replace(request, out=request.out.with_name(name))
        with pytest.raises(KeyboardInterrupt):
            run(again, cluster, pipeline.InMemoryTracker(), SilentDisplay())
    assert [cluster.count() for cluster in found] == [2, 3]
