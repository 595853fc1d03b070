"""The report as an HTML file: whole, safe, and of studies at every stage."""

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import igq
from igq import Layer
from pipeline.analysis.comparison import Comparison
from pipeline.commands.studies.report import report as write_report
from pipeline.intervals import Interval
from pipeline.reports.figures import Shown
from pipeline.reports.html import Page, html
from pipeline.study.trials import Origin, Trial

VOID = {"meta", "br", "use", "path", "rect", "image"}
LESS = Interval(-0.1, -0.2, -0.05)
BEST = Comparison("best", 1, 90.0, 0.1, 10.0, 0.2, Interval(0.2, 0.1, 0.3), None, None, None)
UNIFORM = replace(BEST, name="uniform", number=0, kl=Interval(0.3, 0.2, 0.4), difference=LESS)


class Reader(HTMLParser):
    """Notes headings, text, and whatever would be fetched; refuses tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [
            str(value)
            for name, value in attributes
            if name in ("src", "href", "xlink:href") and not str(value).startswith(("#", "data:"))
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


@pytest.fixture
def page(layers: tuple[Layer, ...], trial: Callable[..., Trial]) -> Page:
    made = (trial(0, origin=Origin.UNIFORM), trial(1, (0.5,)))
    allocation = igq.uniform(layers[1:], 4)
    trials = [replace(t, proposal=replace(t.proposal, allocation=allocation)) for t in made]
    return Page(
        title="vit <tiny> w4a4",
        folder="studies/one",
        shown=Shown(trials, 100, layers, trials[1], (BEST, UNIFORM)),
        images=400,
        reference_top1=0.75,
        definition={"seed": "0"},
        system={"host": "here"},
        commands=["igq search 'a & b'"],
    )


def test_a_report_begins_with_the_verdict_and_fetches_nothing(page: Page) -> None:
    report = read(html([page]))
    assert report.fetched == []
    assert report.headings == [
        "How did the search go?",
        "Where did the groups go?",
        "Is the best better than its rivals?",
        "The best and its rivals",
        "Chosen allocation",
        "Trials",
        "How to reproduce",
        "What was searched",
        "What it ran on",
    ]
    assert report.text.index("better than uniform") < report.text.index("How did the search go?")
    for said in ("vit <tiny> w4a4", "igq search 'a & b'", "75.00%", "-0.1000 ± 0.0500", "here"):
        assert said in report.text


def test_a_study_that_has_not_ended_says_so(page: Page) -> None:
    early = replace(page, shown=replace(page.shown, comparisons=()), images=0, system={})
    report = read(html([early]))
    assert "has not come to its end: the best of 2 trials so far is trial 1" in report.text
    assert "The study did not note it." in report.text


@pytest.mark.slow
def test_several_studies_stand_side_by_side(page: Page) -> None:
    report = read(html([page, replace(page, title="another")]))
    assert report.headings[0] == "Overview"
    assert report.text.count("Trial 1, 100 BOPs.") == 2


def test_a_page_is_for_light_dark_paper_and_telephones(page: Page) -> None:
    text = html([page])
    for rule in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert rule in text


@pytest.mark.slow
def test_commands_have_an_option_a_line(page: Page) -> None:
    report = read(html([replace(page, commands=["igq search demo --trials 4 --seed 0"])]))
    assert "igq search demo \\\n  --trials 4 \\\n  --seed 0" in report.text


@pytest.mark.slow
def test_a_definition_reads_as_a_person_would_write_it(demo_study: Path, tmp_path: Path) -> None:
    text = read(write_report([demo_study], tmp_path / "report.html").read_text()).text
    assert "num_groups1, 2, 3, 4, 6, 8" in text
    assert "name vit_tiny_patch16_224, arguments img_size 8, patch_size 2" in text
    assert "uniform 2" in text
    assert "{'" not in text


@pytest.mark.slow
def test_many_trials_stay_far_below_five_megabytes(page: Page, trial: Any) -> None:
    many = [*page.shown.trials, *(trial(n, (1.0 + n % 7,)) for n in range(2, 1000))]
    assert len(html([replace(page, shown=replace(page.shown, trials=many))])) < 1_000_000
