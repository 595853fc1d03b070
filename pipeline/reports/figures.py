"""Figures of a study: its trials, its allocation, and the comparison with its rivals."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from igq import Layer, Setting, Unit
from igq.costs import Number
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.reports.allocations import block_grid, searches_bits, weight_of
from pipeline.study.best import front, knee
from pipeline.study.trials import Origin, State, Trial


def write_figures(
    folder: Path,
    trials: Sequence[Trial],
    budget: Number,
    layers: Sequence[Layer],
    chosen: Trial,
    comparisons: Sequence[Comparison],
) -> list[Path]:
    """Draw the trials, the chosen allocation, the front and the comparison; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _draw_trials(folder / "trials.png", trials, budget, chosen),
        _draw_allocation(folder / "allocation.png", layers, chosen.proposal.allocation),
        _draw_front(folder / "front.png", trials, budget),
        draw_comparison(folder / "comparison.png", comparisons, "images"),
    ]


def _draw_trials(path: Path, trials: Sequence[Trial], budget: Number, chosen: Trial) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for origin in Origin:
        mine = [t for t in trials if t.proposal.origin is origin and t.state is State.COMPLETE]
        axes.scatter(*_places(mine), label=origin.value)
    stopped = [t for t in trials if t.state is State.PRUNED]
    axes.scatter(*_places(stopped), marker="x", color="lightgrey", label="pruned (KL so far)")
    axes.axvline(budget, color="black", linestyle=":", label="budget")
    place = (chosen.proposal.cost, chosen.kl or 0.0)
    axes.annotate("best", place, xytext=(6, 4), textcoords="offset points")
    axes.set(xlabel=f"{_axis(trials)} of one image", ylabel="KL on search images, nats")
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _draw_front(path: Path, trials: Sequence[Trial], budget: Number) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    axes.scatter(*_places(complete), color="lightgrey", label="complete trials")
    for origin in (Origin.UNIFORM, Origin.ILP):
        mine = [trial for trial in complete if trial.proposal.origin is origin]
        axes.scatter(*_places(mine), marker="s", label=origin.value)
    points = front(trials)
    axes.step(*_places(points), where="post", marker="o", color="C3", label="front")
    if (bend := knee(points)) is not None and bend.kl is not None:
        costs = [trial.proposal.cost for trial in complete]
        right = 2 * bend.proposal.cost > min(costs) + max(costs)  # the label goes to the left there
        axes.annotate(
            f"knee (trial {bend.number})",
            (bend.proposal.cost, bend.kl),
            xytext=(-20 if right else 20, 30),
            textcoords="offset points",
            ha="right" if right else "left",
            arrowprops={"arrowstyle": "->"},
        )
    axes.axvline(budget, color="black", linestyle=":", label="the space's budget")
    axes.set(xlabel=f"{_axis(trials)} of one image", ylabel="KL on search images, nats")
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _axis(trials: Sequence[Trial]) -> str:
    """Return the name of the budget's unit, as an axis has it."""
    unit = next(iter(trials[0].proposal.costs)) if trials else Unit.BOPS
    return "nanoseconds" if unit is Unit.NANOSECONDS else "bit operations"


def _places(trials: Sequence[Trial]) -> tuple[list[Number], list[float]]:
    return [t.proposal.cost for t in trials], [t.kl or 0.0 for t in trials]


def _draw_allocation(
    path: Path, layers: Sequence[Layer], allocation: Mapping[str, Setting]
) -> Path:
    from matplotlib.figure import Figure

    grid = block_grid(layers, allocation)
    places = list(dict.fromkeys(place for row in grid.values() for place in row))
    values = [
        [weight_of(row[place]) if place in row else 0 for place in places] for row in grid.values()
    ]
    figure = Figure(figsize=(6, 1 + 0.4 * len(grid)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(places)), places)
    axes.set_yticks(range(len(grid)), [f"block {block}" for block in grid])
    for y, row in enumerate(values):
        for x, place in enumerate(places):
            ink = "white" if 2 * row[x] < max(map(max, values)) else "black"
            label = str(list(grid.values())[y].get(place, ""))
            axes.text(x, y, label, ha="center", va="center", color=ink)
    bits = searches_bits(allocation.values())
    figure.colorbar(image, label="bits of weight and activation" if bits else "groups")
    figure.savefig(path, dpi=120)
    return path


def draw_comparison(path: Path, rows: Sequence[Comparison], over: str) -> Path:
    """Draw each contender's KL, and its difference from the best, as dots with intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.45 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _dots(left, [(row.name, row.kl) for row in rows])
    left.set(xlabel="KL to full precision, nats", title=f"95 % intervals over {over}")
    left.invert_yaxis()
    _dots(right, [(row.name, row.difference) for row in rows])
    right.axvline(0, color="black", linestyle=":")
    right.set(xlabel="difference in KL (best minus this), nats", title="left of 0: best is better")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _dots(axes: Any, rows: Sequence[tuple[str, Interval | None]]) -> None:
    for place, (_, known) in enumerate(rows):
        if known is not None:
            reach = known.high - known.mean if isfinite(known.high) else 0.0
            axes.errorbar(known.mean, place, xerr=reach, fmt="o", capsize=4, color="C0")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
