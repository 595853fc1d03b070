"""The end of a search: the best beside its rivals on unseen images, written down and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from igq import Layer
from igq.settings import plain
from pipeline.comparison import BEST, Comparison, Contender, compared, measure, save_validation
from pipeline.config import Folder
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.figures import write_figures
from pipeline.files import write_json
from pipeline.final import Final, chosen, final_line, play, save_final
from pipeline.preparation import Preparation
from pipeline.reports import allocation_picture, comparison_table, front_lines
from pipeline.rivals import RANDOM, search_forwards
from pipeline.screen import Screen
from pipeline.study import Origin, Trial, best, best_of, forwards, front
from pipeline.tracking import Tracker


@dataclass(frozen=True)
class Result:
    """What a search found."""

    folder: Folder
    trials: tuple[Trial, ...]
    best: Trial
    final: Final | None
    comparisons: tuple[Comparison, ...]
    validation_images: int
    reference_top1: float | None
    """Top-1 of the full-precision model on the validation images."""
    layers: tuple[Layer, ...]
    front: tuple[Trial, ...]
    """Trials that no cheaper one equals, cheapest first."""


@dataclass(frozen=True)
class Found:
    """The trials of a search that has ended, and the best of them."""

    trials: tuple[Trial, ...]
    best: Trial
    final: Final | None
    forwards: int
    """Image-forward-passes that it took to find."""


def found_best(
    preparation: Preparation, trials: tuple[Trial, ...], images: Images | None, screen: Screen
) -> Found:
    """Choose the best trial of a search, in a final round on these images.

    Raises:
        StudyError: no trial completed; the message says what went wrong in those that failed.
    """
    if best(trials, preparation.budget) is None:
        errors = sorted({trial.error for trial in trials if trial.error})
        raise StudyError(f"no trial completed within the budget. {' '.join(errors)}".strip())
    final = None
    if images is not None:
        progress = screen.step("final round: the best few on images that no trial saw")
        final = play(preparation, trials, images, progress)
    taken = chosen(trials, preparation.budget, final)
    assert taken is not None  # finalists are trials
    spent = search_forwards(trials, preparation) + (final.forwards if final else 0)
    return Found(trials, taken, final, spent)


def conclude(
    folder: Folder,
    preparation: Preparation,
    found: Found,
    rivals: Sequence[Contender],
    images: Images,
    tracker: Tracker,
    screen: Screen,
) -> Result:
    """Measure the best and its rivals on validation images; close the tracker's run with them."""
    contenders = _contenders(preparation, found, rivals)
    progress = screen.step("comparing on images that the search did not see")
    validation = measure(
        preparation.model, preparation.task, preparation.bops, contenders, images, progress
    )
    save_validation(folder.validation, validation)
    save_final(folder.final, found.final)
    result = Result(
        folder,
        found.trials,
        found.best,
        found.final,
        compared(validation),
        len(images),
        validation.reference_top1,
        preparation.layers,
        front(found.trials),
    )
    _report(result, preparation, images, tracker)
    return result


def _contenders(
    preparation: Preparation, found: Found, rivals: Sequence[Contender]
) -> list[Contender]:
    """The best first, then what it is to be compared with, each with the compute that it took."""
    budget, trials = preparation.budget, found.trials
    contenders = [Contender(BEST, found.best, found.forwards)]
    taken = {
        Origin.UNIFORM: 0,
        Origin.ILP: preparation.harm_forwards,
        Origin.FISHER: preparation.predicted_forwards,
    }
    for origin, spent in taken.items():
        if (baseline := best_of(trials, origin, budget)) is not None:
            contenders.append(Contender(origin.value, baseline, spent))
    if not rivals and (drawn := best_of(trials, Origin.RANDOM, budget)) is not None:
        few = [trial for trial in trials if trial.proposal.origin is Origin.RANDOM]
        contenders.append(Contender(RANDOM, drawn, forwards(few)))
    return [*contenders, *rivals]


def _report(result: Result, preparation: Preparation, images: Images, tracker: Tracker) -> None:
    """Write the result beside the study, and close the tracker's run with it."""
    allocation = result.best.proposal.allocation
    content = {
        "best": {
            "trial": result.best.number,
            "bops": result.best.proposal.bops,
            "size": result.best.proposal.size,
            "search_kl": result.best.kl,
            "allocation": plain(allocation),
        },
        "final": result.final.json() if result.final else None,
        "budget": preparation.budget,
        "validation": {
            "source": images.source,
            "images": len(images),
            "fingerprint": images.fingerprint,
            "reference_top1": result.reference_top1,
        },
        "front": [
            {"trial": trial.number, "bops": trial.proposal.bops, "search_kl": trial.kl}
            for trial in result.front
        ],
        "comparisons": [row.json() for row in result.comparisons],
    }
    write_json(result.folder.result, content)
    figures = write_figures(
        result.folder.figures,
        result.trials,
        preparation.budget,
        result.layers,
        result.best,
        result.comparisons,
    )
    metrics = {"best_kl": result.best.kl or 0.0, **result.best.proposal.metrics}
    if result.final is not None:
        metrics["final_kl"] = result.final.kl(result.best.number)
    for row in result.comparisons:
        metrics[f"validation_kl_{row.name}"] = row.kl.mean
        metrics[f"forwards_{row.name}"] = float(row.forwards)
        if row.top1 is not None:
            metrics[f"validation_top1_{row.name}"] = row.top1.mean
        if row.difference is not None:
            metrics |= {
                f"best_less_{row.name}": row.difference.mean,
                f"best_less_{row.name}_low": row.difference.low,
                f"best_less_{row.name}_high": row.difference.high,
            }
    tracker.finish(
        metrics=metrics,
        tags={"igq.best_trial": str(result.best.number)},
        tables={"allocation.json": plain(allocation), "result.json": content},
        files=figures,
    )


def show(result: Result, front: bool, location: str, console: Console) -> None:
    """Print what a search found, and what can be done with it; `location` is where trials are."""
    allocation = result.best.proposal.allocation
    title = f"On {result.validation_images} images that the search did not see"
    console.print(comparison_table(result.comparisons, title, "images", result.reference_top1))
    if result.final is not None:
        console.print(final_line(result.trials, result.final), soft_wrap=True)
    console.print(allocation_picture(result.layers, allocation))
    folder = result.folder.path
    if front:
        for line in front_lines(result.front):
            console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Trials: {location}", soft_wrap=True)
    console.print(f"Figures: {result.folder.figures}", soft_wrap=True)
    console.print(f"Next: igq export {folder} --out artifacts/{folder.name}", soft_wrap=True)
    console.print(f"      igq ui {folder}", soft_wrap=True)
