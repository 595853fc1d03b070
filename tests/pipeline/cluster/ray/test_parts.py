"""Parts of work on Ray: the same results as in this process, also where a worker dies."""

import os
from pathlib import Path
from typing import Any

import pytest
import ray

from igq.progress import Progress
from pipeline.cluster import InProcess
from pipeline.cluster.placement import WorkerMemory
from pipeline.cluster.ray import RayCluster
from pipeline.evaluation.work import Part
from pipeline.threads import PATIENT

pytestmark = pytest.mark.ray


def total(shared: list[float], argument: int, device: str, progress: Progress) -> dict[str, Any]:
    return {"sum": sum(shared[:argument]), "device": device}


def dying_once(shared: Any, argument: str, device: str, progress: Progress) -> int:
    marker = Path(argument)
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return 7


def reserved(shared: Any, argument: Any, device: str, progress: Progress) -> float:
    return float(ray.get_runtime_context().get_assigned_resources()["memory"])


def patience(shared: Any, argument: Any, device: str, progress: Progress) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in PATIENT}


def failing(shared: Any, argument: Any, device: str, progress: Progress) -> None:
    raise ValueError("not this one")


def test_ray_gives_what_this_process_does_and_replaces_a_dead_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PATIENT:
        monkeypatch.delenv(name, raising=False)
    shared, told = [0.1 * i for i in range(50)], []
    parts = [Part(str(i), total, i, 1.0 + i) for i in range(5)]
    mine = {part.name: result for part, result in InProcess().map(shared, parts, told.append)}
    died = Part("died", dying_once, str(tmp_path / "marker"), 9.0)
    taking = [Part("each", reserved, 0, 1.0), Part("correction", reserved, 0, 1.0, corrects=True)]
    taking.append(Part("threads that wait", patience, 0, 1.0))
    cluster = RayCluster().holding(WorkerMemory(each=1e8, correcting=2e8), left=3 * 10**8)
    theirs = cluster.map(shared, [*parts, *taking, died], told.append)
    found = {part.name: result for part, result in theirs}
    assert found.pop("died") == 7
    assert (found.pop("each"), found.pop("correction")) == (1e8, 2e8)
    assert found.pop("threads that wait") == PATIENT
    assert found == mine
    assert told[-1] == 1.0


def test_an_error_of_a_part_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="not this one"):
        list(RayCluster(workers=1).map(None, [Part("bad", failing, 0, 1.0)], print))
