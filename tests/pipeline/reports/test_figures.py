"""Figures are drawn whatever a study holds."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import igq
from igq import Layer
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.reports.figures import (
    Shown,
    draw_comparison,
    pictures,
    svg,
    write_data,
    write_figures,
)
from pipeline.reports.figures.search import costs_differ
from pipeline.reports.figures.style import COLOURS
from pipeline.reports.figures.workers import busy, draw_workers, lanes
from pipeline.study.final import Final
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


def of_layers(trial: Trial, layers: tuple[Layer, ...], groups: int) -> Trial:
    allocation = igq.uniform(layers, groups)
    return replace(trial, proposal=replace(trial.proposal, allocation=allocation))


@pytest.fixture
def shown(layers: tuple[Layer, ...], trial: Make) -> Shown:
    """Trials of every state; the chosen one has an allocation of the model's layers."""
    trials = [
        trial(0, origin=Origin.UNIFORM),
        trial(1, (0.5,)),
        trial(2, (0.9,), state=State.PRUNED),
        trial(3, (), state=State.OVER_BUDGET, bops=BUDGET + 1),
        trial(4, (), state=State.FAILED, error="no"),
    ]
    trials[:2] = [of_layers(one, layers, number + 2) for number, one in enumerate(trials[:2])]
    groups = (igq.Setting(num_groups=1), igq.Setting(num_groups=4))
    row = dict(zip(groups, (0.1, 0.01), strict=True))
    table = {layer.name: row for layer in layers if layer.grouped}
    final = Final({0: (0.4, 0.6), 1: (0.3, 0.2)}, winner=1)
    return Shown(trials, BUDGET, layers, trials[1], ROWS, final, {"measured": table})


@pytest.mark.slow
def test_figures_are_pictures(shown: Shown, tmp_path: Path) -> None:
    written = write_figures(tmp_path / "figures", shown)
    names = ["search.png", "groups.png", "sensitivity.png", "final.png", "comparison.png"]
    assert [path.name for path in written] == names
    assert all(is_picture(path) for path in written)


def test_a_study_that_has_not_ended_has_the_figures_that_its_numbers_allow(shown: Shown) -> None:
    early = replace(shown, comparisons=(), final=None, sensitivities={})
    assert [picture.name for picture in pictures(early)] == ["search", "groups"]


def test_sensitivities_of_tied_layers_are_not_drawn_layer_by_layer(shown: Shown) -> None:
    tied = replace(shown, sensitivities={"measured": {"a block": {igq.Setting(num_groups=1): 1.0}}})
    assert "sensitivity" not in [picture.name for picture in pictures(tied)]


def test_a_front_is_drawn_only_where_costs_differ(shown: Shown, trial: Make) -> None:
    same = [trial(n, (1.0 / (n + 1),), bops=BUDGET) for n in range(4)]
    assert not costs_differ(same, BUDGET)
    apart = [trial(n, (1.0 / (n + 1),), bops=BUDGET - 30 + 10 * n) for n in range(4)]
    assert costs_differ(apart, BUDGET)
    drawn = [picture.name for picture in pictures(replace(shown, trials=[*shown.trials, *apart]))]
    assert "front" in drawn


def test_svg_takes_the_colours_of_the_page(shown: Shown) -> None:
    search = svg(next(pictures(shown)).figure)
    assert search.startswith("<svg")
    assert "#000000" not in search
    assert "currentColor" in search
    assert f"var(--c0, {COLOURS['best']})" in search
    assert "image-forward-passes of trials" in search  # text, not outlines
    assert "https://" not in search.replace("https://matplotlib.org", "")


def test_marks_have_their_numbers_as_titles(shown: Shown) -> None:
    drawn = {picture.name: svg(picture.figure) for picture in pictures(shown)}
    assert "<title>trial 1, sampler, KL 0.5000, 100 BOPs</title>" in drawn["search"]
    assert drawn["groups"].count("<title>block ") == 2 * len(shown.layers[1:])  # best, uniform
    assert "<title>block , qkv: 1e-1</title>" in drawn["sensitivity"]


def test_trials_of_a_node_that_overlap_ran_on_different_workers(trial: Make) -> None:
    times = [("a", 0, 10), ("a", 5, 12), ("a", 11, 20), ("b", 0, 4)]
    ran = [
        trial(number, node=node, seconds=float(end - begin), ended=1000.0 + end)
        for number, (node, begin, end) in enumerate(times)
    ]
    before = trial(9, seconds=1.0)
    workers = lanes([*ran, before])
    numbers = [(lane.node, [one.number for one in lane.trials]) for lane in workers]
    assert numbers == [("a", [0, 2]), ("a", [1]), ("b", [3])]
    assert busy(workers) == pytest.approx((10 + 9 + 7 + 4) / (3 * 20))
    drawn = svg(draw_workers(workers))
    assert "<title>trial 2, complete, 9.0 s on a</title>" in drawn
    for label in ("a 1", "a 2", "b 1", "seconds since the first trial began"):
        assert f">{label}<" in drawn


def test_numbers_of_figures_are_tables(shown: Shown, tmp_path: Path) -> None:
    trials, sensitivities = write_data(tmp_path / "new", shown)
    rows = list(csv.DictReader(trials.open()))
    assert [row["state"] for row in rows] == [str(one.state) for one in shown.trials]
    assert (rows[1]["kl"], rows[1]["bops"], rows[1]["ended"]) == ("0.5", "100.0", "")
    rows = list(csv.DictReader(sensitivities.open()))
    assert rows[0] == {"table": "measured", "layer": "qkv", "setting": "1", "kl": "0.1"}


def test_a_comparison_is_drawn_into_a_folder_of_its_own(tmp_path: Path) -> None:
    assert is_picture(draw_comparison(tmp_path / "new" / "seeds.png", ROWS, "seeds"))
