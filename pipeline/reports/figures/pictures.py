"""All figures that a study's numbers allow, each with its question and a sentence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from igq import Layer, Setting
from igq.costs import Number
from pipeline.analysis.comparison import Comparison
from pipeline.reports.figures.groups import draw_groups, draw_sensitivities
from pipeline.reports.figures.intervals import draw_final, draw_validation
from pipeline.reports.figures.search import costs_differ, draw_front, draw_search
from pipeline.reports.figures.workers import busy, draw_workers, lanes
from pipeline.study.best import best_of
from pipeline.study.final import Final
from pipeline.study.trials import Origin, Trial

DPI = 130


@dataclass(frozen=True, eq=False)
class Shown:
    """The numbers of a study that figures show."""

    trials: Sequence[Trial]
    budget: Number
    layers: Sequence[Layer]
    chosen: Trial
    comparisons: Sequence[Comparison] = ()
    """The best and its rivals; empty where the search has not come to its end."""
    final: Final | None = None
    sensitivities: Mapping[str, Mapping[str, Mapping[Setting, float]]] = field(default_factory=dict)
    """Name of a table -> layer -> setting -> KL in nats."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, the question that it answers, and a sentence on where to look."""

    name: str
    question: str
    caption: str
    figure: Any
    """Of matplotlib."""


def pictures(shown: Shown) -> Iterator[Picture]:
    """Draw each figure that the study has numbers for."""
    yield _search(shown)
    yield _groups(shown)
    if tables := _by_layer(shown):
        yield Picture(
            "sensitivity",
            "Which layers matter?",
            "Bright layers lose most where they alone have the cheapest setting: measured on "
            "images, and predicted from gradients.",
            draw_sensitivities(shown.layers, tables),
        )
    if costs_differ(shown.trials, shown.budget):
        yield Picture(
            "front",
            "What does a budget buy?",
            "Nothing cheaper lies below the line: each step down is KL that more operations buy.",
            draw_front(shown.trials, shown.budget),
        )
    if shown.final is not None:
        yield _final(shown, shown.final)
    if shown.comparisons:
        yield Picture(
            "comparison",
            "Is the best better than its rivals?",
            "On the right each rival is paired with the best image by image: an interval that lies "
            "wholly left of 0 shows that the best is better.",
            draw_validation(shown.comparisons, "images"),
        )
    if workers := lanes(shown.trials):
        yield Picture(
            "workers",
            "Were the workers busy?",
            f"Each bar is a trial, each gap a wait: workers computed {busy(workers):.0%} of the "
            "time. Short bars are trials that the pruner stopped.",
            draw_workers(workers),
        )


def write_figures(folder: Path, shown: Shown) -> list[Path]:
    """Write each figure as PNG; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in pictures(shown):
        path = folder / f"{picture.name}.png"
        picture.figure.savefig(path, dpi=DPI)
        written.append(path)
    return written


def _search(shown: Shown) -> Picture:
    return Picture(
        "search",
        "How did the search go?",
        "The line falls each time a trial within the budget is the best so far; dashed lines are "
        "what rivals reach. Pruned trials show their KL so far, and those far off lie at the edge.",
        draw_search(shown.trials, shown.budget, shown.chosen, shown.comparisons),
    )


def _groups(shown: Shown) -> Picture:
    allocations = {f"best: trial {shown.chosen.number}": shown.chosen.proposal.allocation}
    for origin in (Origin.UNIFORM, Origin.ILP):
        if (other := best_of(shown.trials, origin, shown.budget)) is not None:
            allocations[origin.value] = other.proposal.allocation
    return Picture(
        "groups",
        "Where did the groups go?",
        "Each row is a block, first to last: bright cells are layers on which the budget is spent.",
        draw_groups(shown.layers, allocations),
    )


def _final(shown: Shown, final: Final) -> Picture:
    return Picture(
        "final",
        "How was the winner chosen?",
        f"KL of each finalist on the final images, which no proposal depends on. Trial "
        f"{final.winner} won. Finalists that fell clearly behind were shown fewer images.",
        draw_final(final, shown.trials),
    )


def _by_layer(shown: Shown) -> dict[str, Mapping[str, Mapping[Setting, float]]]:
    """Return the tables of sensitivities whose entries are single layers."""
    names = {layer.name for layer in shown.layers}
    return {name: table for name, table in shown.sensitivities.items() if table.keys() <= names}
