"""Studies beside each other: over seeds, and those that differ in more."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from igq import Unit
from pipeline.analysis.across_studies import compare_studies
from pipeline.cluster import InProcess
from pipeline.commands.studies.search import run as search
from pipeline.errors import StudyError
from pipeline.evaluation.validation import Measured, Validation, save_validation
from pipeline.study.progress import Display
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Write what a study of a seed and a sampler noted: its best's and its ILP's KLs."""

    def write(name: str, best: float, seed: int = 0, images: str = "v", **more: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        definition = {"key": name, "seed": seed, "images": {"validation": images}, **more}
        (folder / "study.json").write_text(json.dumps(definition))
        rows = {"best": (best, best + 0.2, best + 0.1), "ilp": (0.5, 0.7, 0.62)}
        measured = (
            Measured(n, 0, {Unit.BOPS: 10}, 0.1, 8, 0.3, kls, None) for n, kls in rows.items()
        )
        save_validation(folder / "validation.json", Validation(tuple(measured), None))
        return folder

    return write


def test_one_study_is_its_own_table(study: Callable[..., Path]) -> None:
    (table,) = compare_studies([study("a", 0.4)])
    assert (table.over, [row.name for row in table.rows]) == ("images", ["best", "ilp"])
    assert "3 images" in table.title


def test_one_that_has_not_ended_is_refused_with_what_to_do(study: Callable[..., Path]) -> None:
    folder = study("a", 0.4)
    (folder / "validation.json").unlink()
    with pytest.raises(StudyError, match="must have ended to be compared, but has not: go on with"):
        compare_studies([folder])


def test_seeds_are_one_table(study: Callable[..., Path]) -> None:
    (table,) = compare_studies([study(f"s{seed}", 0.4 + seed / 100, seed) for seed in range(3)])
    assert table.over == "seeds"
    assert table.rows[0].kl.mean == pytest.approx(0.51)
    assert "3 seeds" in table.title


def test_other_samplers_bests_are_compared_too(study: Callable[..., Path]) -> None:
    folders = [study("tpe", 0.4, sampler="tpe"), study("random", 0.45, sampler="random")]
    *own, bests = compare_studies(folders)
    assert len(own) == 2
    assert [row.name for row in bests.rows] == ["best", str(folders[1])]
    assert bests.rows[1].difference is not None
    assert bests.rows[1].difference.mean == pytest.approx(-0.05)


def test_bests_over_seeds_are_paired_by_their_images(study: Callable[..., Path]) -> None:
    folders = [
        study(f"{sampler}{seed}", kl + seed / 10, seed, images=str(seed), sampler=sampler)
        for sampler, kl in (("tpe", 0.4), ("random", 0.45))
        for seed in range(3)
    ]
    bests = compare_studies(folders)[-1]
    assert bests.over == "seeds"
    assert bests.rows[1].difference is not None
    assert bests.rows[1].difference.high == pytest.approx(-0.05)


def test_bests_on_other_images_are_not_compared(study: Callable[..., Path]) -> None:
    folders = [study("a", 0.4, sampler="tpe"), study("b", 0.4, images="w", sampler="random")]
    assert len(compare_studies(folders)) == 2


def test_a_study_given_twice_is_refused(study: Callable[..., Path]) -> None:
    folder = study("a", 0.4)
    with pytest.raises(StudyError, match=r"must be given once, but .*a is"):
        compare_studies([folder, folder])


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must hold study.json"):
        compare_studies([tmp_path])


@pytest.mark.slow
def test_real_studies_over_seeds(
    make_request: Callable[..., Request], display: Display, tmp_path: Path
) -> None:
    requests = make_request(tmp_path / "seeds", trials=8, rivals=True).over_seeds(2)
    assert [request.out.name for request in requests] == ["seed-0", "seed-1"]
    for request in requests:
        search(request, InProcess(), InMemoryTracker(), display)
    (table,) = compare_studies([request.out for request in requests])
    names = ["best", "uniform", "ilp", "fisher", "random", "repaired"]
    assert [row.name for row in table.rows] == names
    assert table.over == "seeds"
