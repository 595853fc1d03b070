"""Figures are drawn whatever a study holds."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

import igq
from igq import Layer
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.reports.figures import draw_comparison, write_figures
from pipeline.study.trials import Origin, State, Trial

Make = Callable[..., Trial]
BUDGET = 100
ALONE = Interval(0.2, -math.inf, math.inf)
ROWS = (
    Comparison("best", 1, 90.0, 0.1, 10.0, 0.2, Interval(0.2, 0.1, 0.3), None, None, None),
    Comparison("ilp", 0, 90.0, 0.1, 10.0, 0.2, ALONE, ALONE, None, None),
)


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        image.verify()
    return True


def test_figures_are_pictures(layers: tuple[Layer, ...], trial: Make, tmp_path: Path) -> None:
    trials = [
        trial(0, origin=Origin.UNIFORM),
        trial(1, (0.5,)),
        trial(2, (0.9,), state=State.PRUNED),
        trial(3, (), state=State.OVER_BUDGET, bops=BUDGET + 1),
        trial(4, (), state=State.FAILED, error="no"),
    ]
    proposal = replace(trials[1].proposal, allocation=igq.uniform(layers, 4))
    chosen = replace(trials[1], proposal=proposal)
    written = write_figures(tmp_path / "figures", trials, BUDGET, layers, chosen, ROWS)
    assert [path.name for path in written] == [
        "trials.png",
        "allocation.png",
        "front.png",
        "comparison.png",
    ]
    assert all(is_picture(path) for path in written)


def test_a_comparison_is_drawn_into_a_folder_of_its_own(tmp_path: Path) -> None:
    assert is_picture(draw_comparison(tmp_path / "new" / "seeds.png", ROWS, "seeds"))
