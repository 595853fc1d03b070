"""Tables and lines that a person sees of a study."""

import io
import math
from typing import Any

import pytest
import torch
from rich.console import Console, RenderableType

from igq import Allocation, Kind, Layer, Observation, Score, Unit
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.reports.allocations import allocation_table
from pipeline.reports.spaces import spaces_table
from pipeline.reports.tables import comparison_table, evaluation_lines, front_lines, verdict
from pipeline.study.trials import Origin, Proposal, State, Trial
from search_spaces import load


def text(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def row(name: str, top1: float | None = 0.5, **more: Any) -> Comparison:
    known: dict[str, Any] = {
        "name": name,
        "number": 7,
        "cost": 123400.0,
        "overhead": 0.0312,
        "passes": 12345.0,
        "search_kl": 0.2,
        "kl": Interval(0.25, 0.24, 0.26),
        "difference": Interval(-0.5, -0.52, -0.48),
        "top1": None if top1 is None else Interval(top1, top1 - 0.1, top1 + 0.1),
        "top1_difference": None if top1 is None else Interval(0.03, 0.02, 0.04),
    }
    return Comparison(**known | more)


@pytest.fixture
def blocks() -> list[Layer]:
    """Two layers in each of two blocks."""
    names = [f"blocks.{block}.{place}" for block in (0, 1) for place in ("attn.qkv", "mlp.fc1")]
    return [Layer(name, Kind.LINEAR, tokens=1, channels=8, outputs=8) for name in names]


class TestComparisonTable:
    def test_has_a_row_for_each_allocation_with_its_errors(self) -> None:
        best = row("best", difference=None, top1_difference=None)
        shown = text(comparison_table([best, row("uniform")], "On 500 images", "images", 0.8))
        named = [line.split() for line in shown.splitlines() if line.strip().startswith("best")]
        first, costs = (" ".join(words) for words in named)
        named = [line.split() for line in shown.splitlines() if line.strip().startswith("uni")]
        second, its_costs = (" ".join(words) for words in named)
        assert first == "best 0.2000 0.2500 ± 0.0100"
        assert second == "uniform 0.2000 0.2500 ± 0.0100 -0.5000 ± 0.0200 better"
        assert costs == "best 1.234e+05 (+3.1%) 12,345 50.00% 0.625"
        assert its_costs == "uniform 1.234e+05 (+3.1%) 12,345 50.00% 0.625 +3.00 ± 1.00"
        assert "On 500 images" in shown
        assert "interval over images" in shown
        assert "top-1 80.00%" in shown

    @pytest.mark.parametrize(
        ("difference", "said"),
        [
            (None, ""),
            (Interval(-0.1, -0.2, 0.0), "no different"),
            (Interval(0.1, -0.2, 0.4), "no different"),
            (Interval(-0.1, -0.2, -0.01), "better"),
            (Interval(0.1, 0.01, 0.2), "worse"),
            (Interval(-0.1, -math.inf, math.inf), "no different"),
        ],
        ids=["itself", "touches 0", "holds 0", "below 0", "above 0", "of one value"],
    )
    def test_says_no_more_than_the_interval_allows(
        self, difference: Interval | None, said: str
    ) -> None:
        assert verdict(row("uniform", difference=difference)) == said

    def test_of_one_value_no_interval_is_shown(self) -> None:
        alone = Interval(0.25, -math.inf, math.inf)
        shown = text(comparison_table([row("best", kl=alone)], "", "seeds"))
        assert "inf" not in shown

    def test_its_headings_say_what_is_subtracted_from_what(self) -> None:
        shown = " ".join(text(comparison_table([row("best")], "", "images")).split())
        for words in (
            "difference in KL",
            "(best minus this)",
            "gain: top-1 of the best",
            "(points)",
        ):
            assert words in shown

    def test_80_columns_hold_it_and_nothing_is_cut(self) -> None:
        rows = [row("best"), row("uniform", passes=123_456_789.0, size=86_543_210.0)]
        console = Console(file=io.StringIO(), width=80)
        console.print(comparison_table(rows, "On 500 images", "images", 0.8))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(map(len, shown.splitlines())) <= 80
        assert "…" not in shown
        for value in ("1.234e+05, 86.5 MB", "123,456,789", "+3.00 ± 1.00", "-0.5000 ± 0.0200"):
            assert value in shown

    def test_does_without_labels(self) -> None:
        shown = text(comparison_table([row("best", top1=None)], "On 500 images", "images"))
        assert "size" not in shown
        assert "full precision: top-1" not in shown
        assert "0.2500" in shown


class TestSize:
    """Shown where it is known: where bits of weights are searched."""

    def test_the_comparison_has_it_beside_bops(self) -> None:
        shown = text(comparison_table([row("best", size=2_893_456.0)], "On 500 images", "images"))
        assert "BOPs, size" in shown
        assert "1.234e+05, 2.89 MB" in shown

    def test_the_front_tells_it(self) -> None:
        def trial(size: int | None) -> Trial:
            costs = {Unit.BOPS: 21_000} | ({} if size is None else {Unit.BYTES: size})
            proposal = Proposal(3, Origin.SAMPLER, Allocation.of({"fc": 2}), costs)
            return Trial(proposal, State.COMPLETE, Observation((0.5,)))

        (_, with_size), (_, without) = (front_lines([trial(s)]) for s in (3_200_000, None))
        assert with_size == "  2.1000e+04  0.5000  3.2 MB, trial 3, sampler"
        assert without == "  2.1000e+04  0.5000  trial 3, sampler"

    def test_a_space_that_limits_it_says_so_beside_its_budget(self) -> None:
        shown = text(spaces_table([load(f"deit_tiny_{name}") for name in ("mixed_small", "w4a4")]))
        assert "uniform w4a4g8, 2.9 MB" in shown
        assert "uniform 8 " in shown


def test_the_picture_has_a_row_for_each_block_and_a_bar_for_each_layer(
    blocks: list[Layer],
) -> None:
    names = [layer.name for layer in blocks]
    allocation = Allocation.of(dict(zip(names, (2, 4, 8, 16), strict=True)))
    shown = text(allocation_table(blocks, allocation))
    assert "attn.qkv" in shown
    assert "mlp.fc1" in shown
    first, second = (line for line in shown.splitlines() if "▁" in line or "█" in line)
    assert "2 ▁" in first
    assert "4 ▂" in first
    assert "8 ▄" in second
    assert "16 █" in second


class TestEvaluationLines:
    @pytest.fixture
    def score(self) -> Score:
        return Score(torch.tensor([0.1, 0.3]), torch.tensor([True, False]))

    def test_says_what_was_reached(self, score: Score) -> None:
        assert evaluation_lines(score, 4, 0.8, {"result": None}) == [
            "4 images, top-1 50.00% (0.625 of full precision's 80.00%), KL 0.2000"
        ]

    def test_says_what_was_noted_when_it_was_searched(self, score: Score) -> None:
        result = {
            "comparisons": [{"top1": 0.9, "kl": 0.11}],
            "validation": {"images": 500, "source": "digits"},
        }
        assert evaluation_lines(score, 4, None, {"result": result})[1] == (
            "noted at the end of its search, on 500 images of digits: top-1 90.00%, KL 0.1100"
        )

    def test_says_what_is_missing_where_nothing_can_be_measured(self) -> None:
        (line,) = evaluation_lines(Score(None, None), 4, None, {})
        assert "nothing to measure" in line
        assert "--weights" in line
