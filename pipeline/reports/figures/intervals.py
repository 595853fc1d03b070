"""Means with their intervals: the comparison with rivals, and the final round."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval, interval
from pipeline.reports.figures.style import COLOURS, blank
from pipeline.study.final import Final
from pipeline.study.trials import Trial

TICKS = 4
"""The most spaces between ticks of one of two axes side by side: more run into each other."""


def draw_validation(rows: Sequence[Comparison], over: str) -> Any:
    """Draw each contender's KL, and its paired difference from the best, as dots with intervals."""
    figure, (left, right) = blank(1.4 + 0.36 * len(rows), 2, share_y=True)
    colours = [COLOURS.get(row.name, COLOURS["pruned"]) for row in rows]
    _dots(left, [(row.name, row.kl) for row in rows], colours)
    left.set(xlabel="KL to full precision, nats")
    left.set_title(f"95 % intervals over {over}", fontsize="medium")
    left.invert_yaxis()
    for one in (left, right):
        one.locator_params(axis="x", nbins=TICKS)
    _dots(right, [(row.name, row.difference) for row in rows], colours)
    right.axvline(0, color="black", linestyle=":")
    right.set(xlabel="KL of best minus this, nats")
    right.set_title("left of 0: best is better", fontsize="medium")
    return figure


def draw_comparison(path: Path, rows: Sequence[Comparison], over: str) -> Path:
    """Write `draw_validation` as PNG; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_validation(rows, over).savefig(path, dpi=130)
    return path


def draw_final(final: Final, trials: Sequence[Trial]) -> Any:
    """Draw the KL of each finalist on the final images that it saw, least first."""
    origins = {trial.number: trial.proposal.origin.value for trial in trials}
    order = sorted(final.kls, key=lambda n: (-len(final.kls[n]), final.kl(n)))
    figure, axes = blank(1.1 + 0.26 * len(order))
    names = [f"{n} {origins.get(n, '')}, {len(final.kls[n])} images" for n in order]
    known = [interval(final.kls[number]) for number in order]
    colours = [COLOURS["best" if n == final.winner else origins.get(n, "pruned")] for n in order]
    _dots(axes, list(zip(names, known, strict=True)), colours)
    axes.invert_yaxis()
    axes.set(xlabel="KL on final images, nats (95 % intervals)")
    return figure


def _dots(axes: Any, rows: Sequence[tuple[str, Interval | None]], colours: Sequence[str]) -> None:
    for place, ((_, known), colour) in enumerate(zip(rows, colours, strict=True)):
        if known is not None:
            reach = known.high - known.mean if isfinite(known.high) else 0.0
            axes.errorbar(known.mean, place, xerr=reach, fmt="o", capsize=4, color=colour)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
