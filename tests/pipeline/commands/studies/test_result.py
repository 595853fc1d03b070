"""The result of a study as a user of Python meets it: opened, shown, exported, searched for."""

import shutil
from pathlib import Path

import pytest

import igq
import pipeline

pytestmark = pytest.mark.slow


@pytest.fixture
def result(demo_study: Path) -> pipeline.Result:
    return pipeline.open(demo_study)


def test_an_opened_result_is_that_of_the_search(
    tmp_path: Path, result: pipeline.Result, demo_study: Path
) -> None:
    shutil.copytree(demo_study, tmp_path / "again")
    again = pipeline.search(
        "demo",
        tmp_path / "again",
        trials=4,
        resume=True,
        rivals=False,
        figures=False,
        engine=pipeline.Engine.EAGER,
        tracking=pipeline.InMemoryTracker(),
    )
    assert again.trials == result.trials
    assert again.best == result.best


def test_it_says_the_best_in_a_line(result: pipeline.Result) -> None:
    assert f"4 trials, best: trial {result.best.number} at " in repr(result)
    assert f"KL {result.comparisons[0].kl.mean:.4f}" in repr(result)


def test_a_notebook_shows_the_comparison_as_a_table(result: pipeline.Result) -> None:
    page = result._repr_html_()
    assert page.startswith("<pre>")
    assert all(row.name in page for row in result.comparisons)


def test_what_is_exported_has_the_best_allocation(result: pipeline.Result, tmp_path: Path) -> None:
    exported = result.export(tmp_path / "artifact")
    assert igq.load(exported.path).allocation == result.best.proposal.allocation
    assert repr(exported).endswith(f"trial {result.best.number} at {result.best.proposal.price})")


def test_an_unknown_format_is_refused_before_anything_is_written(
    result: pipeline.Result, tmp_path: Path
) -> None:
    with pytest.raises(igq.InvalidArgumentError, match="native"):
        result.export(tmp_path / "artifact", format="pickle")
    assert not (tmp_path / "artifact").exists()
