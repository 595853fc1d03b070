"""Tables and lines about a study's result."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from igq import Score, Unit
from igq.formats import Verified
from pipeline.analysis.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.study.best import knee
from pipeline.study.trials import Trial


def comparison_table(
    rows: Sequence[Comparison], title: str, over: str, reference_top1: float | None = None
) -> Group:
    """Return the best beside its rivals as two tables, which terminals of 80 columns have room for.

    The first has the KL, with intervals over images or seeds (`over`), the second what it costs.
    """
    return Group(_kl_table(rows, title), _cost_table(rows, over, reference_top1))


def _kl_table(rows: Sequence[Comparison], title: str) -> Table:
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("allocation", no_wrap=True)
    difference = "difference in KL\n(best minus this)"
    for heading in ("search KL", "KL", difference, "best is"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.search_kl:.4f}",
            _with_reach(row.kl),
            "" if row.difference is None else _with_reach(row.difference, "+"),
            verdict(row),
        )
    return table


def _cost_table(rows: Sequence[Comparison], over: str, reference_top1: float | None) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("allocation", no_wrap=True)
    price = "BOPs" if all(row.size is None for row in rows) else "BOPs, size"
    for heading in (price, "passes", "top-1", "kept", "gain\n(points)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        kept = row.top1 is not None and reference_top1
        table.add_row(
            row.name,
            f"{row.cost:.3e}{_size_or_overhead(row)}",
            f"{row.passes:,.0f}",
            "" if row.top1 is None else f"{row.top1.mean:.2%}",
            f"{row.top1.mean / reference_top1:.3f}" if kept and row.top1 and reference_top1 else "",
            "" if row.top1_difference is None else _points(row.top1_difference),
        )
    caption = (
        f"± half of the 95 % interval over {over}; differences are paired; passes: "
        "image-forward-passes of the search for it; kept: of full precision's top-1; gain: top-1 "
        "of the best minus this"
    )
    if reference_top1 is not None:
        caption += f"; full precision: top-1 {reference_top1:.2%}"
    table.caption = caption
    return table


def _size_or_overhead(row: Comparison) -> str:
    """Write the size where it is known: there bits are searched, and overhead says little."""
    return f" (+{row.overhead:.1%})" if row.size is None else f", {Unit.BYTES.words(row.size)}"


def verdict(row: Comparison) -> str:
    """Return what the interval of the difference shows of the best against this one."""
    if row.difference is None:
        return ""
    if row.difference.holds_zero:
        return "no different"
    return "better" if row.difference.mean < 0 else "worse"


def _with_reach(known: Interval, sign: str = "") -> str:
    reach = known.high - known.mean
    return f"{known.mean:{sign}.4f}" + (f" ± {reach:.4f}" if isfinite(reach) else "")


def _points(known: Interval) -> str:
    reach = 100 * (known.high - known.mean)
    return f"{100 * known.mean:+.2f}" + (f" ± {reach:.2f}" if isfinite(reach) else "")


def front_lines(points: Sequence[Trial]) -> list[str]:
    """Return the front in words: the KL that a budget buys, and where more begins to buy less."""
    bend = knee(points)
    unit = next(iter(points[0].proposal.costs)) if points else Unit.BOPS
    name = "latency" if unit is Unit.NANOSECONDS else "BOPs"
    lines = [f"KL on search images for {name}:"]
    for trial in points:
        mark = f"  <- knee: more {name} buy less from here on" if trial is bend else ""
        size = trial.proposal.costs.get(Unit.BYTES)
        size_words = "" if size is None else f"{Unit.BYTES.words(size)}, "
        lines.append(
            f"  {_cost(unit, trial)}  {trial.kl:.4f}  {size_words}trial {trial.number}, "
            f"{trial.proposal.origin.value}{mark}"
        )
    if bend is not None:
        budget = f"bops:{bend.proposal.cost}"
        if unit is Unit.NANOSECONDS:
            budget = f"latency:{unit.metric(bend.proposal.cost)[1]:.6f}ms"
        lines.append(f"The knee: igq export STUDY --budget {budget} --out FOLDER")
    return lines


def _cost(unit: Unit, trial: Trial) -> str:
    cost = trial.proposal.cost
    return unit.words(cost) if unit is Unit.NANOSECONDS else f"{cost:.4e}"


def evaluation_lines(
    score: Score, images: int, reference_top1: float | None, notes: Mapping[str, Any]
) -> list[str]:
    """Return the score of an exported model, and the one noted at the end of its search."""
    reached = [f"{images} images"]
    if score.top1 is not None:
        top1 = reference_top1
        kept = f" ({score.top1 / top1:.3f} of full precision's {top1:.2%})" if top1 else ""
        reached.append(f"top-1 {score.top1:.2%}{kept}")
    if score.kl is not None:
        reached.append(f"KL {score.kl:.4f}")
    if len(reached) == 1:
        reached.append("nothing to measure: give --weights for KL, or images with labels for top-1")
    lines = [", ".join(reached)]
    if noted := notes.get("result"):
        row, on = noted["comparisons"][0], noted["validation"]
        known = "" if row["top1"] is None else f"top-1 {row['top1']:.2%}, "
        lines.append(
            f"noted at the end of its search, on {on['images']} images of {on['source']}: "
            f"{known}KL {row['kl']:.4f}"
        )
    return lines


def verification_lines(files: Verified, score: Score | None) -> list[str]:
    """Return what was checked of an exported model, and what could not be."""
    schema = f", schema {files.schema}" if files.kind == "native" else ""
    lines = [f"Format {files.kind}{schema}. Checked:", *(f"  {check}" for check in files.checks)]
    if not files.sealed:
        lines.append(
            f"Not checked: whether a file was changed, as schema {files.schema} has no digests; "
            "export the model again."
        )
    if files.unlisted:
        lines.append(f"Not checked: {', '.join(files.unlisted)}, which the manifest does not name.")
    if score is not None:
        top1 = "" if score.top1 is None else f"top-1 {score.top1:.2%}"
        kl = "not the KL, which needs --weights" if score.kl is None else f"KL {score.kl:.4f}"
        lines.append(f"  noted scores, measured again: {', '.join(filter(None, (top1, kl)))}")
    return lines
