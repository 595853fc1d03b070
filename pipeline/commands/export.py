"""Export: the best allocation of a study as a model that runs elsewhere."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from igq import Unit
from igq.costs import Number
from igq.formats import format_named
from igq.quantized import assemble, select_weights
from pipeline.errors import StudyError
from pipeline.files import read_json
from pipeline.preparation.costs import most_bops
from pipeline.preparation.study import Study
from pipeline.study.best import chosen, front
from pipeline.study.final import Final
from pipeline.study.folder import Folder
from pipeline.study.trials import Trial
from search_spaces import Budget


@dataclass(frozen=True, repr=False)
class Exported:
    """A model on disk, and the trial whose allocation it has."""

    path: Path
    trial: Trial
    notes: Mapping[str, Any]

    def __repr__(self) -> str:
        where, number, price = str(self.path), self.trial.number, self.trial.proposal.price
        return f"Exported({where!r}, trial {number} at {price})"


def export(
    study: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    budget: Budget | None = None,
    format: str = "native",
) -> Exported:
    """Write the best allocation of a study as a quantized model in a format of `igq.formats`.

    Without `budget` it is the space's own; within that the winner of the final round is best.
    `weights` is for weights that were moved since; they must be the same ones.

    Raises:
        ArtifactError: `out` exists already or cannot be written.
        InfeasibleBudgetError: even the cheapest allocation costs more than `budget`.
        InvalidArgumentError: there is no such format.
        StudyError: there is no study, no trial completed, or the weights are others.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> exported.notes["space"]["name"]
    'demo'
    >>> pipeline.export("nowhere", "artifacts/nowhere")
    Traceback (most recent call last):
    pipeline.errors.StudyError: a study must hold study.json, but nowhere has none.
    """
    format_named(format)  # refuses an unknown one before any work
    opened = Study.open(Path(study), Path(weights) if weights else None)
    return export_study(opened, Path(out), budget, format)


def export_study(
    study: Study, out: Path, budget: Budget | None = None, format: str = "native"
) -> Exported:
    """Write the best allocation of an opened study; see `export`."""
    write, limits = format_named(format), study.limits
    if budget is not None:
        limits = limits.with_budget(most_bops(budget, study.space, study.layers, limits.table))
        limits.check()
    final = study.final() if limits.budget == study.budget else None
    taken = _taken(study, limits.budget, final)
    allocation = taken.proposal.allocation
    changed, by_bits = study.calibration.weights(copy.deepcopy(study.model))
    weights = select_weights(by_bits, allocation, study.layers)
    candidates = study.calibration.candidates(study.model)
    quantized = assemble(changed, candidates.select(allocation), weights)
    notes = _notes(study, taken, final)
    return Exported(write(quantized, out, notes), taken, notes)


def _taken(study: Study, budget: Number, final: Final | None) -> Trial:
    """Return the best trial within a budget.

    Raises:
        StudyError: no trial completed within it.
    """
    trials = study.trials()
    taken = chosen(trials, budget, final)
    if taken is None:
        known = "".join(f"; the cheapest has {t.proposal.cost:.4g}" for t in front(trials)[:1])
        raise StudyError(
            f"a study must have a trial that completed within the budget of {budget:.4g} BOPs, "
            f"but {study.folder.path} has none{known}."
        )
    return taken


def _notes(study: Study, taken: Trial, final: Final | None) -> dict[str, Any]:
    """Return the notes of an artifact: its preprocessing, study and trial."""
    written = read_json(study.folder.study)
    return {
        "preprocessing": asdict(study.preprocessing),
        "space": written["space"],
        "study": written["key"],
        "model": written["model"],
        "trial": taken.number,
        "bops": taken.proposal.cost,
        "size": taken.proposal.costs.get(Unit.BYTES),
        "overhead": study.limits.table.overhead(taken.proposal.cost),
        "search_kl": taken.kl,
        "final_kl": None if final is None else final.kl(taken.number),
        "result": _result(study.folder, taken),
    }


def _result(folder: Folder, taken: Trial) -> dict[str, Any] | None:
    """Return the result of the search if it is that of this trial."""
    if not folder.result.exists():
        return None
    result = dict(read_json(folder.result))
    return result if result["best"]["trial"] == taken.number else None
