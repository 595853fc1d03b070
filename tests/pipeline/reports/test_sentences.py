"""The result in words."""

from pathlib import Path
from typing import Any

from igq import Allocation
from igq.quantized import EAGER
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.reports.description import describe
from pipeline.reports.sentences import gain_sentence, search_command, title, verdict_sentence
from pipeline.study.definition import Definition
from pipeline.study.request import Sampler
from search_spaces import load


def row(name: str, kl: float, low: float = 0.0, high: float = 0.0) -> Comparison:
    apart = None if name == "best" else Interval((low + high) / 2, low, high)
    known = Interval(kl, kl - 0.1, kl + 0.1)
    return Comparison(name, 7, 2e9, 0.1, 400.0, 0.5, known, apart, None, None)


ROWS = (
    row("best", 0.3),
    row("uniform", 0.4, -0.15, -0.05),
    row("ilp", 0.31, -0.02, 0.01),
    row("random", 0.5, -0.3, -0.1),
    row("repaired", 0.2, 0.05, 0.15),
)


def definition(**changes: Any) -> Definition:
    purposes = ("calibration", "search", "validation", "final")
    known: dict[str, Any] = {
        "space": load("vit_tiny_w4a4"),
        "weights": "/data/vit tiny.pth",
        "model": "0123",
        "images": dict.fromkeys(purposes, "0abc"),
        "sources": dict.fromkeys(purposes, "/data/val"),
        "seed": 3,
        "sampler": Sampler.SURROGATE,
        "execution": EAGER,
    }
    return Definition(**known | changes)


def test_the_verdict_names_each_rival_once() -> None:
    assert verdict_sentence(ROWS, 400) == (
        "On 400 images that the search did not see, the best allocation has a KL of 0.3000 nats "
        "(95 % interval 0.2000 to 0.4000): better than uniform and random; no different from ilp; "
        "worse than repaired."
    )


def test_the_gain_is_against_uniform_and_says_where_it_may_be_noise() -> None:
    sure = "That is 25% less than the uniform allocation of the same budget."
    assert gain_sentence(ROWS) == sure
    unsure = (row("best", 0.3), row("uniform", 0.25, -0.1, 0.2))
    assert gain_sentence(unsure) == (
        "That is 20% more than the uniform allocation of the same budget, within the noise of "
        "these images."
    )
    assert gain_sentence(ROWS[:1]) == ""


def test_a_study_s_title_tells_what_it_is() -> None:
    assert title(definition()) == "vit_tiny w4a4 uniform 8, seed 3"
    assert title(definition(front=True)) == "vit_tiny w4a4 uniform 8 front, seed 3"


def test_the_search_can_be_typed_again() -> None:
    command = (
        "igq search vit_tiny_w4a4 --images /data/val --weights '/data/vit tiny.pth' --trials 64 "
        "--seed 3 --sampler surrogate"
    )
    assert search_command(definition(), 64) == command
    assert search_command(definition(front=True), 64) == f"{command} --front"
    assert search_command(definition(), 64, rivals=False) == f"{command} --no-rivals"
    sources = {"calibration": "train", "search": "a", "validation": "b", "final": "a"}
    apart = search_command(definition(sources=sources), 64)
    assert "--images a --calibration train --validation b" in apart


def test_a_description_is_the_result_in_markdown() -> None:
    allocation = Allocation.of({"blocks.0.fc1": 8, "blocks.1.fc1": 2})
    text = describe(definition(), Path("studies/x"), ROWS, 400, allocation, 64, ["search.png"])
    assert text.startswith("**On 400 images")
    assert "| ilp | 0.3100 | -0.0050 [-0.0200, +0.0100] | no different | 400 |" in text
    assert "Means by kind: fc1 5. Means by third of the depth: first 8, middle 2." in text
    assert "igq search vit_tiny_w4a4 \\\n  --images /data/val" in text
    assert "igq export studies/x --out artifacts/x" in text
    assert "[search.png](artifact:search.png)" in text
