"""The description of a study in Markdown: its result, as MLflow shows it above all numbers."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from igq import Setting
from pipeline.analysis.comparison import Comparison
from pipeline.reports.sentences import (
    export_command,
    folded,
    gain_sentence,
    had_rivals,
    means_in_words,
    search_command,
    verdict_sentence,
)
from pipeline.reports.tables import verdict
from pipeline.study.definition import Definition
from pipeline.study.shape import means_by_kind, means_by_third

Row = Sequence[str]


def describe(
    definition: Definition,
    folder: Path,
    rows: Sequence[Comparison],
    images: int,
    allocation: Mapping[str, Setting],
    trials: int,
    figures: Iterable[str] = (),
) -> str:
    """Return a study's result in Markdown, the verdict first.

    Args:
        definition: of the study.
        folder: the study's folder.
        rows: the best and its rivals on validation images.
        images: how many these are.
        allocation: the best one.
        trials: how many the study has.
        figures: names of artifacts to link to, as `artifact:NAME`.
    """
    best, again = rows[0], search_command(definition, trials, had_rivals(rows))
    parts = [
        f"**{verdict_sentence(rows, images)}** {gain_sentence(rows)}",
        _table(("allocation", "KL, nats", "best minus this", "best is", "passes"), map(_row, rows)),
        f"### Chosen allocation: trial {best.number}, {best.cost:.4g} BOPs",
        f"Means by kind: {means_in_words(means_by_kind(allocation))}. "
        f"Means by third of the depth: {means_in_words(means_by_third(allocation))}.",
        f"### Next\n\n```sh\n{export_command(folder)}\nigq report {folder}\n```",
        f"### Reproduce\n\n```sh\n{folded(again)}\n```",
    ]
    if links := " · ".join(f"[{name}](artifact:{name})" for name in figures):
        parts.append(f"### Figures\n\n{links}")
    return "\n\n".join(parts)


def _row(row: Comparison) -> Row:
    difference = row.difference
    apart = "" if difference is None else f"{difference.mean:+.4f}"
    if difference is not None and isfinite(difference.low):
        apart += f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return row.name, f"{row.kl.mean:.4f}", apart, verdict(row), f"{row.passes:,.0f}"


def _table(heading: Row, rows: Iterable[Row]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
