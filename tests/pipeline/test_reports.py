"""What a person sees of a study."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console, RenderableType

import igq
from igq import Layer, Score, Slices
from pipeline.reports import (
    allocation_picture,
    comparison_table,
    evaluation_lines,
    write_figures,
)
from pipeline.study import Comparison, Origin, State, Trial

Make = Callable[..., Trial]
BUDGET = 100


def text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def row(name: str, top1: float | None = 0.5, **more: Any) -> Comparison:
    known: dict[str, Any] = {
        "name": name,
        "number": 7,
        "bops": 123400,
        "overhead": 0.0312,
        "kl": 0.25,
        "kl_error": 0.01,
        "difference": -0.5,
        "difference_error": 0.02,
        "top1": top1,
        "search_kl": 0.2,
    }
    return Comparison(**known | more)


@pytest.fixture
def blocks() -> list[Layer]:
    """Two layers in each of two blocks."""
    kind: dict[str, Any] = {
        "slices": Slices.CHANNELS,
        "tokens": 1,
        "channels": 8,
        "outputs": 8,
        "weighted": True,
    }
    names = [f"blocks.{block}.{place}" for block in (0, 1) for place in ("attn.qkv", "mlp.fc1")]
    return [Layer(name, **kind) for name in names]


class TestComparisonTable:
    def test_has_a_row_for_each_allocation_with_its_errors(self) -> None:
        shown = text(comparison_table([row("best"), row("uniform", difference=0.0)], 500, 0.8))
        best, uniform = (line for line in shown.splitlines() if "0.2500" in line)
        for value in ("best", "7", "1.234e+05", "3.1%", "0.2500 ± 0.0100", "-0.5000 ± 0.0200"):
            assert value in best
        assert "50.00%" in best
        assert "0.625" in best
        assert "0.0000 ±" not in uniform
        assert "On 500 images" in shown
        assert "top-1 80.00%" in shown

    def test_does_without_labels(self) -> None:
        shown = text(comparison_table([row("best", top1=None)], 500, None))
        assert "full precision" not in shown
        assert "0.2500" in shown


def test_the_picture_has_a_row_for_each_block_and_a_bar_for_each_layer(
    blocks: list[Layer],
) -> None:
    groups = dict(zip([layer.name for layer in blocks], (2, 4, 8, 16), strict=True))
    shown = text(allocation_picture(blocks, groups))
    assert "attn.qkv" in shown
    assert "mlp.fc1" in shown
    first, second = (line for line in shown.splitlines() if "▁" in line or "█" in line)
    assert "2 ▁" in first
    assert "4 ▂" in first
    assert "8 ▄" in second
    assert "16 █" in second


def test_figures_are_pictures(blocks: list[Layer], trial: Make, tmp_path: Path) -> None:
    trials = [
        trial(0, origin=Origin.UNIFORM),
        trial(1, (0.5,)),
        trial(2, (0.9,), state=State.PRUNED),
        trial(3, (), state=State.OVER_BUDGET, bops=BUDGET + 1),
        trial(4, (), state=State.FAILED, error="no"),
    ]
    allocation = igq.uniform(blocks, 4)
    written = write_figures(tmp_path / "figures", trials, BUDGET, blocks, allocation)
    assert [path.name for path in written] == ["trials.png", "allocation.png"]
    for path in written:
        with Image.open(path) as image:
            image.verify()


@dataclass
class Measured:
    score: Score
    images: int = 4
    reference_top1: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class TestEvaluationLines:
    @pytest.fixture
    def score(self) -> Score:
        return Score(torch.tensor([0.1, 0.3]), torch.tensor([True, False]))

    def test_says_what_was_reached(self, score: Score) -> None:
        measured = Measured(score, reference_top1=0.8, notes={"result": None})
        assert evaluation_lines(measured) == [
            "4 images, top-1 50.00% (0.625 of full precision's 80.00%), KL 0.2000"
        ]

    def test_says_what_was_noted_when_it_was_searched(self, score: Score) -> None:
        result = {
            "comparisons": [{"top1": 0.9, "kl": 0.11}],
            "validation": {"images": 500, "source": "digits"},
        }
        measured = Measured(score, notes={"result": result})
        assert evaluation_lines(measured)[1] == (
            "noted at the end of its search, on 500 images of digits: top-1 90.00%, KL 0.1100"
        )

    def test_says_what_is_missing_where_nothing_can_be_measured(self) -> None:
        (line,) = evaluation_lines(Measured(Score(None, None)))
        assert "nothing to measure" in line
        assert "--weights" in line
