"""One HTML file about studies: it needs no network, and prints well."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from igq import Setting, Unit
from pipeline.analysis.comparison import Comparison
from pipeline.evaluation.validation import Validation
from pipeline.intervals import Interval
from pipeline.reports.allocations import block_grid, weight_of
from pipeline.reports.figures import Picture, Shown, pictures, svg
from pipeline.reports.sentences import (
    export_command,
    folded,
    gain_sentence,
    had_rivals,
    means_in_words,
    search_command,
    title,
    verdict_sentence,
)
from pipeline.reports.tables import verdict
from pipeline.study.definition import Definition
from pipeline.study.shape import means_by_kind, means_by_third
from pipeline.study.trials import State, Trial, passes

Cells = Sequence[str]
ELSEWHERE = ("name", "trials")
"""Fields of a space that the report says itself: a search may have had other trials."""


@dataclass(frozen=True, eq=False)
class Page:
    """A study as its report shows it."""

    title: str
    folder: str
    shown: Shown
    images: int
    """Validation images; 0 where the search has not come to its end."""
    reference_top1: float | None
    definition: Mapping[str, str]
    """The study's definition, in words."""
    system: Mapping[str, str]
    """The system that it ran on; empty for a study that did not note it."""
    commands: Sequence[str]
    """Command lines that make the study again, and export its best."""

    @property
    def verdict(self) -> str:
        """The result in a sentence or two."""
        rows = self.shown.comparisons
        if not rows:
            return (
                "The search has not come to its end: the best of "
                f"{len(self.shown.trials)} trials so far is trial {self.shown.chosen.number}, with "
                f"a KL of {self.shown.chosen.kl:.4f} nats on search images."
            )
        return f"{verdict_sentence(rows, self.images)} {gain_sentence(rows)}"


def page_of(
    definition: Definition,
    folder: Path,
    shown: Shown,
    validation: Validation | None,
    system: Mapping[str, str],
) -> Page:
    """Return a study as its report shows it; `validation` is None before its end."""
    again = search_command(definition, len(shown.trials), had_rivals(shown.comparisons))
    return Page(
        title=title(definition),
        folder=str(folder),
        shown=shown,
        images=validation.images if validation else 0,
        reference_top1=validation.reference_top1 if validation else None,
        definition=_words(definition),
        system=system,
        commands=[again, export_command(folder)],
    )


def _words(definition: Definition) -> dict[str, str]:
    space = definition.space.model_dump(mode="json", exclude_none=True)
    facts = {name: _plainly(value) for name, value in space.items() if name not in ELSEWHERE}
    images = {
        f"{purpose} images": f"{source}, digest {definition.images[purpose]}"
        for purpose, source in definition.sources.items()
    }
    more = {"key": definition.key, "sampler": definition.sampler.value, "weights": definition.model}
    return {"space": definition.space.name, **facts, **images, **more}


def _plainly(value: object) -> str:
    """Write a value of a space as a person would."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plainly(part)}" for name, part in value.items())
    return ", ".join(map(_plainly, value)) if isinstance(value, list) else str(value)


def html(pages: Sequence[Page]) -> str:
    """Return the report of one study, or of several side by side."""
    style = files("pipeline.reports").joinpath("report.css").read_text()
    name = pages[0].title if len(pages) == 1 else f"{len(pages)} studies"
    body = [
        f"<header><h1>{escape(name)}</h1></header>",
        _beside(pages, "", _verdict),
        _overview(pages) if len(pages) > 1 else "",
        *_figures(pages),
        _beside(pages, "The best and its rivals", _rivals),
        _beside(pages, "Chosen allocation", _allocation),
        _beside(pages, "Trials", _trials),
        _beside(pages, "How to reproduce", _commands),
        _beside(pages, "What was searched", lambda page: _facts(page.definition)),
        _beside(pages, "What it ran on", lambda page: _facts(page.system)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _beside(pages: Sequence[Page], heading: str, part: Callable[[Page], str]) -> str:
    """Return a section with a part of each study, side by side where there is room."""
    top = f"<h2>{escape(heading)}</h2>" if heading else ""
    several = len(pages) > 1
    parts = (
        f"<article>{f'<h3>{escape(page.title)}</h3>' if several else ''}{part(page)}</article>"
        for page in pages
    )
    return f'<section>{top}<div class="beside">{"".join(parts)}</div></section>'


def _verdict(page: Page) -> str:
    return f'<p class="verdict">{escape(page.verdict)}</p>'


def _overview(pages: Sequence[Page]) -> str:
    heading = ("study", "folder", "KL", "best minus uniform", "trials", "passes", "BOPs")
    return f"<section><h2>Overview</h2>{_table(heading, map(_overview_row, pages))}</section>"


def _overview_row(page: Page) -> Cells:
    shown = page.shown
    rows = {row.name: row for row in shown.comparisons}
    uniform = rows["uniform"].difference if "uniform" in rows else None
    return (
        page.title,
        page.folder,
        _interval(rows["best"].kl) if rows else f"{shown.chosen.kl:.4f} (search images)",
        _interval(uniform, "+"),
        str(len(shown.trials)),
        f"{passes(shown.trials):,}",
        f"{shown.chosen.proposal.costs[Unit.BOPS]:.4g}",
    )


def _figures(pages: Sequence[Page]) -> list[str]:
    """Return a section for each figure that any study has."""
    drawn = [{picture.name: picture for picture in pictures(page.shown)} for page in pages]
    names = dict.fromkeys(name for few in drawn for name in few)
    of = dict(zip(map(id, pages), drawn, strict=True))
    sections = []
    for name in names:
        question = next(few[name].question for few in drawn if name in few)

        def part(page: Page, name: str = name) -> str:
            return _figure(of[id(page)].get(name))

        sections.append(_beside(pages, question, part))
    return sections


def _figure(picture: Picture | None) -> str:
    if picture is None:
        return "<p>This study has none.</p>"
    return (
        f'<figure><div class="wide" role="img" aria-label="{escape(picture.question)}">'
        f"{svg(picture.figure)}</div><figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _rivals(page: Page) -> str:
    rows = page.shown.comparisons
    if not rows:
        return "<p>They are compared at the end of the search.</p>"
    heading = ("allocation", "BOPs", "passes", "search KL", "KL", "best minus this", "best is")
    shown = (*heading, "top-1", "top-1 gain, points")
    note = f"± half of the 95 % interval over {page.images} images; differences are paired."
    if page.reference_top1 is not None:
        note += f" Full precision has a top-1 of {page.reference_top1:.2%}."
    return f"{_table(shown, map(_rival, rows))}<p>{escape(note)}</p>"


def _rival(row: Comparison) -> Cells:
    gain = row.top1_difference
    return (
        row.name,
        f"{row.cost:.4g}",
        f"{row.passes:,.0f}",
        f"{row.search_kl:.4f}",
        _interval(row.kl),
        _interval(row.difference, "+"),
        verdict(row),
        "" if row.top1 is None else f"{row.top1.mean:.2%}",
        "" if gain is None else f"{100 * gain.mean:+.2f} ± {100 * (gain.high - gain.mean):.2f}",
    )


def _interval(known: Interval | None, sign: str = "") -> str:
    return "" if known is None else f"{known.mean:{sign}.4f} ± {known.high - known.mean:.4f}"


def _allocation(page: Page) -> str:
    allocation = page.shown.chosen.proposal.allocation
    grid = block_grid(page.shown.layers, allocation)
    places = list(dict.fromkeys(place for row in grid.values() for place in row))
    most = max(map(weight_of, allocation.values()))
    rows = ([block, *(_cell(row.get(p), most) for p in places)] for block, row in grid.items())
    words = means_in_words(means_by_kind(allocation) | means_by_third(allocation))
    price = f"Trial {page.shown.chosen.number}, {page.shown.chosen.proposal.price}."
    return (
        f"<p>{escape(price)} Means by kind and third of the depth: {escape(words)}.</p>"
        f"{_table(('block', *places), rows, plain=False)}"
    )


def _cell(setting: Setting | None, most: int) -> str:
    if setting is None:
        return ""
    share = round(100 * weight_of(setting) / most)
    return f'<span class="bar" style="--share:{share}%">{setting}</span>'


def _trials(page: Page) -> str:
    trials = page.shown.trials
    counts = {state: sum(trial.state is state for trial in trials) for state in State}
    said = ", ".join(f"{n} {state.value.replace('_', ' ')}" for state, n in counts.items() if n)
    seconds = sum(trial.seconds for trial in trials)
    line = f"{len(trials)} trials: {said}; {passes(trials):,} passes, {seconds:,.0f} s of workers."
    complete = [trial for trial in trials if trial.state is State.COMPLETE]
    few = sorted(complete, key=lambda trial: (trial.kl or 0.0, trial.number))[:10]
    heading = ("trial", "proposed by", "search KL", "cost", "seconds", "node")
    return f"<p>{escape(line)} The ten of least KL:</p>{_table(heading, map(_trial, few))}"


def _trial(trial: Trial) -> Cells:
    proposal = trial.proposal
    kl, seconds = f"{trial.kl:.4f}", f"{trial.seconds:.2f}"
    return str(trial.number), str(proposal.origin), kl, proposal.price, seconds, trial.node


def _commands(page: Page) -> str:
    commands = "\n".join(map(folded, page.commands))
    return f"<pre><code>{escape(commands)}</code></pre>"


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return "<p>The study did not note it.</p>"
    return f'<div class="facts">{_table(("", ""), facts.items())}</div>'


def _table(heading: Cells, rows: Iterable[Cells], plain: bool = True) -> str:
    """Return a table; cells are text where `plain`, or else HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell) if plain else cell}</td>' for cell in row)}</tr>"
        for row in rows
    )
    head = f"<thead><tr>{top}</tr></thead>" if any(heading) else ""
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'
