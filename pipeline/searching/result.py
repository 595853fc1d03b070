"""The end of a search: choose the best trial, compare it on unseen images, write the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igq import Unit
from igq.costs import Number
from igq.settings import plain
from pipeline.analysis.comparison import Comparison, compared
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.evaluation.validation import BEST, Contender, Validation, measure, save_validation
from pipeline.evaluation.work import Workers
from pipeline.files import appearing
from pipeline.preparation.prepare import Preparation
from pipeline.preparation.purposes import FINAL, VALIDATION
from pipeline.preparation.study import Study
from pipeline.reports.description import describe
from pipeline.searching.final_round import play
from pipeline.searching.rivals import RANDOM, search_passes
from pipeline.study.best import best, best_of, chosen, front
from pipeline.study.final import Final, save_final
from pipeline.study.progress import Display
from pipeline.study.seals import read_sealed, write_sealed
from pipeline.study.trials import Origin, Proposal, Trial, passes
from pipeline.tracking import Metrics, Tags, Tracker


@dataclass(frozen=True)
class Found:
    """The trials of a search that has ended, and the best of them."""

    trials: tuple[Trial, ...]
    best: Trial
    final: Final | None
    passes: int
    """Image-forward-passes that the search took."""


def choose(
    preparation: Preparation,
    trials: tuple[Trial, ...],
    display: Display,
    workers: Workers | None = None,
) -> Found:
    """Choose the best trial of a search, in a final round where the study has images for one.

    Raises:
        StudyError: no trial completed; the message says what went wrong in those that failed.
    """
    if best(trials, preparation.budget) is None:
        errors = sorted({trial.error for trial in trials if trial.error})
        raise StudyError(f"no trial completed within the budget. {' '.join(errors)}".strip())
    final, images = None, preparation.study.images[FINAL]
    if len(images):
        progress = display.step("final round: the best few on images that no trial saw")
        final = play(preparation, trials, images, progress, workers)
    taken = chosen(trials, preparation.budget, final)
    assert taken is not None  # finalists are trials
    spent = search_passes(trials, preparation) + (final.passes if final else 0)
    return Found(trials, taken, final, spent)


def conclude(
    preparation: Preparation,
    found: Found,
    rivals: Sequence[Contender],
    tracker: Tracker,
    display: Display,
    figures: bool = True,
    workers: Workers | None = None,
) -> None:
    """Measure the best and its rivals on the validation images; write and track the result."""
    folder, images = preparation.study.folder, preparation.study.images[VALIDATION]
    progress = display.step("comparing on images that the search did not see")
    contenders = _contenders(preparation, found, rivals)
    validation = measure(
        preparation.model,
        preparation.task,
        preparation.limits,
        contenders,
        images,
        progress,
        workers,
    )
    rows = compared(validation)
    content = _content(preparation, found, rows, validation, images)
    save_final(folder.final, found.final)
    write_sealed(folder.result, content)
    save_validation(folder.validation, validation, beside=(folder.final, folder.result))
    drawn = _figures(preparation, found, validation, display) if figures else []
    publish(tracker, preparation.study, found, rows, content, drawn)


def publish(
    tracker: Tracker,
    study: Study,
    found: Found,
    rows: Sequence[Comparison],
    content: Mapping[str, Any],
    drawn: Sequence[Path],
) -> None:
    """Close a tracked study with its result; `content` is that of result.json."""
    tracker.finish(
        metrics=_metrics(found, rows),
        tags=_tags(study, found, rows, content["validation"]["images"], drawn),
        tables={"allocation.json": content["best"]["allocation"], "result.json": content},
        files=drawn,
    )


def _contenders(
    preparation: Preparation, found: Found, rivals: Sequence[Contender]
) -> list[Contender]:
    """Return the best, then what it is compared with, each with the compute that it took."""
    budget, trials = preparation.budget, found.trials
    contenders = [Contender(BEST, found.best, found.passes)]
    taken = {
        Origin.UNIFORM: 0,
        Origin.ILP: preparation.measured.passes,
        Origin.FISHER: preparation.predicted.passes if preparation.predicted else 0,
    }
    for origin, spent in taken.items():
        if (baseline := best_of(trials, origin, budget)) is not None:
            contenders.append(Contender(origin.value, baseline, spent))
    if not rivals and (drawn := best_of(trials, Origin.RANDOM, budget)) is not None:
        few = [trial for trial in trials if trial.proposal.origin is Origin.RANDOM]
        contenders.append(Contender(RANDOM, drawn, passes(few)))
    return [*contenders, *rivals]


def _content(
    preparation: Preparation,
    found: Found,
    rows: Sequence[Comparison],
    validation: Validation,
    images: Images,
) -> dict[str, Any]:
    """Return the result as plain data; the names are those of result.json."""
    proposal = found.best.proposal
    return {
        "best": {
            "trial": found.best.number,
            "bops": proposal.costs[Unit.BOPS],
            **_latency(proposal),
            "size": proposal.costs.get(Unit.BYTES),
            "search_kl": found.best.kl,
            "allocation": plain(proposal.allocation),
        },
        "final": found.final.json() if found.final else None,
        "budget": preparation.budget,
        "validation": {
            "source": images.source,
            "images": len(images),
            "fingerprint": images.fingerprint,
            "reference_top1": validation.reference_top1,
        },
        "front": [
            {"trial": trial.number, "bops": trial.proposal.costs[Unit.BOPS], "search_kl": trial.kl}
            for trial in front(found.trials)
        ],
        "comparisons": [row.json() for row in rows],
    }


def _latency(proposal: Proposal) -> dict[str, Number]:
    """Return the nanoseconds of an image, where the study limits them."""
    known = proposal.costs.get(Unit.NANOSECONDS)
    return {} if known is None else {"latency_ns": known}


def _metrics(found: Found, rows: Sequence[Comparison]) -> Metrics:
    """Return the result as MLflow's metrics; those before a slash are one section there."""
    metrics = {"search_kl": found.best.kl or 0.0, **found.best.proposal.metrics}
    if found.final is not None:
        metrics["final_kl"] = found.final.kl(found.best.number)
    for row in rows:
        metrics[f"validation_kl/{row.name}"] = row.kl.mean
        metrics[f"passes/{row.name}"] = float(row.passes)
        if row.top1 is not None:
            metrics[f"validation_top1/{row.name}"] = row.top1.mean
        if row.difference is not None:
            metrics |= {
                f"best_less/{row.name}": row.difference.mean,
                f"best_less_low/{row.name}": row.difference.low,
                f"best_less_high/{row.name}": row.difference.high,
            }
    return metrics


def _tags(
    study: Study,
    found: Found,
    rows: Sequence[Comparison],
    images: int,
    figures: Sequence[Path],
) -> Tags:
    """Return the number of the best trial, and the result in Markdown as the description."""
    text = describe(
        study.definition,
        study.folder.path,
        rows,
        images,
        found.best.proposal.allocation,
        len(found.trials),
        [path.name for path in figures],
    )
    return {"igq.best_trial": str(found.best.number), "mlflow.note.content": text}


def _figures(
    preparation: Preparation, found: Found, validation: Validation, display: Display
) -> list[Path]:
    """Write figures, the numbers that they show, and the report; return the files."""
    # matplotlib takes a second to load
    from pipeline.reports.figures import Shown, write_data, write_figures
    from pipeline.reports.html import html, page_of

    display.step("drawing figures")
    study, folder = preparation.study, preparation.study.folder
    tables = {"measured": preparation.measured, "predicted": preparation.predicted}
    shown = Shown(
        study.trials(),  # as the journal has them, with the time of their end
        preparation.budget,
        preparation.layers,
        found.best,
        compared(validation),
        found.final,
        {name: table.sensitivity for name, table in tables.items() if table is not None},
    )
    system = read_sealed(folder.system) if folder.system.exists() else {}
    page = page_of(study.definition, folder.path, shown, validation, system)
    with appearing(folder.report) as draft:
        draft.write_text(html([page]), encoding="utf-8")
    drawn = write_figures(folder.figures, shown)
    return [folder.report, *drawn, *write_data(folder.figures, shown)]
