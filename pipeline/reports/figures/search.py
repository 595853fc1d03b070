"""How a search went: its trials against the compute they took, and the front of cost and KL."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from igq import Unit
from igq.costs import Number
from pipeline.analysis.comparison import Comparison
from pipeline.reports.figures.style import COLOURS, blank, titled
from pipeline.study.best import front, knee
from pipeline.study.trials import Origin, State, Trial

DIFFERENT = 0.01
"""The least range of costs, as a share of the budget, that a front is drawn for (our choice)."""
HEADROOM = 1.25
"""Trials above this many times the worst baseline are drawn at the edge."""

EDGE = 0.98
"""The height of the edge, as a share of the axis: marks there are whole."""


def draw_search(
    trials: Sequence[Trial], budget: Number, chosen: Trial, comparisons: Sequence[Comparison]
) -> Any:
    """Draw each trial and the best so far against image-forward-passes, rivals as lines."""
    figure, axes = blank(4.0)
    ends = list(accumulate(len(trial.observation) for trial in trials))
    rivals = {row.name: row.search_kl for row in comparisons[1:]}
    top = _top(trials, rivals.values())
    for name, kind in (("pruned", State.PRUNED), ("complete", State.COMPLETE)):
        shown = [(x, t) for x, t in zip(ends, trials, strict=True) if t.state is kind]
        _scatter(axes, name, shown, top)
    _best_so_far(axes, trials, ends, budget)
    for name, kl in rivals.items():
        colour = COLOURS.get(name, COLOURS["pruned"])
        axes.axhline(kl, color=colour, linestyle="--", linewidth=1.2, label=name)
    at = next(x for x, trial in zip(ends, trials, strict=True) if trial.number == chosen.number)
    star = {"marker": "*", "s": 160, "color": COLOURS["best"], "zorder": 5}
    axes.scatter([at], [chosen.kl or 0.0], label=f"chosen: trial {chosen.number}", **star)
    axes.set(xlabel="image-forward-passes of trials", ylabel="KL on search images, nats")
    axes.set_ylim(top=top)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _top(trials: Sequence[Trial], rivals: Any) -> float:
    """Return the top of the axis: outliers do not press all others together."""
    kls = [trial.kl for trial in trials if trial.kl is not None]
    starts = [t.kl for t in trials if t.kl is not None and t.proposal.origin is not Origin.SAMPLER]
    return min(max(kls), HEADROOM * max([*starts, *rivals] or kls)) * 1.03


def _scatter(axes: Any, name: str, shown: Sequence[tuple[int, Trial]], top: float) -> None:
    colour = COLOURS["pruned" if name == "pruned" else Origin.SAMPLER.value]
    places = [x for x, _ in shown]
    kls = [min(trial.kl or 0.0, EDGE * top) for _, trial in shown]
    mark = {"marker": "x", "s": 18, "linewidths": 1} if name == "pruned" else {"s": 14}
    marks = axes.scatter(places, kls, color=colour, label=name, **mark)
    titled(marks, [_title(trial) for _, trial in shown])


def _title(trial: Trial) -> str:
    origin, price = trial.proposal.origin, trial.proposal.price
    return f"trial {trial.number}, {origin}, KL {trial.kl or 0.0:.4f}, {price}"


def _best_so_far(axes: Any, trials: Sequence[Trial], ends: Sequence[int], budget: Number) -> None:
    least, line = float("inf"), []
    for end, trial in zip(ends, trials, strict=True):
        within = trial.state is State.COMPLETE and trial.proposal.cost <= budget
        if within and trial.kl is not None and trial.kl < least:
            least = trial.kl
        if least < float("inf"):
            line.append((end, least))
    colour = COLOURS["best"]
    axes.step(*zip(*line, strict=True), where="post", color=colour, label="best so far")


def costs_differ(trials: Sequence[Trial], budget: Number) -> bool:
    """Return whether the costs of trials differ enough for a front to say anything."""
    costs = [point.proposal.cost for point in front(trials)]
    return len(costs) > 2 and max(costs) - min(costs) > DIFFERENT * budget


def draw_front(trials: Sequence[Trial], budget: Number) -> Any:
    """Draw KL against cost, with the front of trials that no cheaper one equals."""
    figure, axes = blank(3.8)
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    dots = axes.scatter(*_places(complete), color=COLOURS["pruned"], s=12, label="complete trials")
    titled(dots, list(map(_title, complete)))
    for origin in (Origin.UNIFORM, Origin.ILP):
        mine = [trial for trial in complete if trial.proposal.origin is origin]
        axes.scatter(*_places(mine), marker="s", color=COLOURS[origin.value], label=origin.value)
    points = front(trials)
    axes.step(*_places(points), where="post", marker=".", color=COLOURS["best"], label="front")
    if (bend := knee(points)) is not None:
        place = ([bend.proposal.cost], [bend.kl])
        label = f"knee: trial {bend.number}"
        axes.scatter(*place, marker="*", s=160, color=COLOURS["best"], zorder=5, label=label)
    axes.axvline(budget, color="black", linestyle=":", label="the space's budget")
    axes.set(xlabel=f"{_unit(trials)} of one image", ylabel="KL on search images, nats")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _unit(trials: Sequence[Trial]) -> str:
    """Return the name of the budget's unit, as an axis has it."""
    unit = next(iter(trials[0].proposal.costs)) if trials else Unit.BOPS
    return "nanoseconds" if unit is Unit.NANOSECONDS else "bit operations"


def _places(trials: Sequence[Trial]) -> tuple[list[Number], list[float]]:
    return [t.proposal.cost for t in trials], [t.kl or 0.0 for t in trials]
