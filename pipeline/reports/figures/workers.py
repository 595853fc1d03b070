"""Workers over time: what each of them did, and when it waited."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reports.figures.style import COLOURS, blank, titled
from pipeline.study.trials import Origin, State, Trial

MINUTE = 60.0
STATES = {
    State.COMPLETE: COLOURS[Origin.SAMPLER.value],
    State.PRUNED: COLOURS["pruned"],
    State.FAILED: COLOURS["best"],
}
SLACK = 0.5
"""Seconds by which the driver may note an end late (our choice)."""


@dataclass(frozen=True)
class Lane:
    """The trials of one worker, one after the other."""

    node: str
    trials: tuple[Trial, ...]


def lanes(trials: Sequence[Trial]) -> tuple[Lane, ...]:
    """Return the workers that trials show: as few on each node as can have run them.

    Trials of before, whose time is not known, are left out.
    """
    found: list[Lane] = []
    timed = [trial for trial in trials if trial.ended and trial.seconds]
    for trial in sorted(timed, key=lambda one: (_span(one), one.number)):
        begin, _ = _span(trial)
        free = (
            number
            for number, lane in enumerate(found)
            if lane.node == trial.node and _span(lane.trials[-1])[1] <= begin + SLACK
        )
        number = next(free, None)
        if number is None:
            found.append(Lane(trial.node, (trial,)))
        else:
            found[number] = Lane(trial.node, (*found[number].trials, trial))
    return tuple(sorted(found, key=lambda lane: lane.node))


def busy(workers: Sequence[Lane]) -> float:
    """Return the share of the time that workers computed."""
    spans = [_span(trial) for lane in workers for trial in lane.trials]
    length = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return min(1.0, sum(end - begin for begin, end in spans) / max(length * len(workers), 1e-9))


def draw_workers(workers: Sequence[Lane]) -> Any:
    """Draw a row for each worker with a bar for each trial."""
    figure, axes = blank(1.3 + 0.3 * len(workers))
    spans = [_span(trial) for lane in workers for trial in lane.trials]
    zero, last = min(begin for begin, _ in spans), max(end for _, end in spans)
    unit, name = (MINUTE, "minutes") if last - zero > 3 * MINUTE else (1.0, "seconds")
    for row, lane in enumerate(workers):
        for trial in lane.trials:
            _bar(axes, row, trial, zero, unit)
    axes.set_yticks(range(len(workers)), _names(workers))
    axes.invert_yaxis()
    axes.set(xlabel=f"{name} since the first trial began")
    for state in dict.fromkeys(t.state for lane in workers for t in lane.trials):
        axes.barh(0, 0, color=STATES[state], label=str(state))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _span(trial: Trial) -> tuple[float, float]:
    """Return when a trial began and ended, where that is known."""
    return trial.started or 0.0, trial.ended or 0.0


def _bar(axes: Any, row: int, trial: Trial, zero: float, unit: float) -> None:
    look = {"height": 0.7, "edgecolor": "black", "linewidth": 0.3, "color": STATES[trial.state]}
    begin = (_span(trial)[0] - zero) / unit
    bars = axes.barh(row, trial.seconds / unit, left=begin, **look)
    where = f" on {trial.node}" if trial.node else ""
    titled(bars.patches[0], [f"trial {trial.number}, {trial.state}, {trial.seconds:.1f} s{where}"])


def _names(workers: Sequence[Lane]) -> list[str]:
    """Name workers by their node and their number on it."""
    counts: dict[str, int] = {}
    names = []
    for lane in workers:
        counts[lane.node] = counts.get(lane.node, 0) + 1
        names.append(f"{lane.node or 'worker'} {counts[lane.node]}")
    return names
