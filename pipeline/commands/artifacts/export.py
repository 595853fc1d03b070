"""Export: the best allocation of a study as a model that runs elsewhere."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from igq import Allocation, InvalidArgumentError
from igq.costs import Number
from igq.formats.base import format_named, formats_in
from igq.quantized import assemble, select_weights
from pipeline.errors import StudyError
from pipeline.files import appearing
from pipeline.paths import check_new
from pipeline.preparation.costs.limits import check_budget, most_cost
from pipeline.preparation.notes import notes_of
from pipeline.preparation.study import Study
from pipeline.study.best import chosen, completed, front
from pipeline.study.final import Final
from pipeline.study.trials import Trial
from search_spaces import Budget


@dataclass(frozen=True, repr=False)
class Exported:
    """A model on disk, and the trial whose allocation it has."""

    path: Path
    trial: Trial
    notes: Mapping[str, Any]

    def json(self) -> dict[str, Any]:
        """Return which trial was written where, with its costs and scores, as plain data."""
        names = ("bops", "size", "overhead", "search_kl", "final_kl", "scores")
        noted = {name: self.notes.get(name) for name in names}
        return {"path": str(self.path), "trial": self.trial.number, **noted}

    def __repr__(self) -> str:
        where, number, price = str(self.path), self.trial.number, self.trial.proposal.price
        return f"Exported({where!r}, trial {number} at {price})"


@dataclass(frozen=True)
class Wanted:
    """The trial of a study that is exported, and how.

    >>> Wanted(trial=3).formats
    ('native',)
    """

    formats: tuple[str, ...] = ("native",)
    """One is written to the folder itself, several to folders within it that have their names."""
    budget: Budget | None = None
    """The budget that the best trial is taken of; None: the space's own."""
    trial: int | None = None
    """The number of a trial, whatever it costs; None: the best within the budget."""

    def __post_init__(self) -> None:
        """Refuse a trial by number and by budget at once, and formats that there are not."""
        if self.trial is not None and self.budget is not None:
            raise InvalidArgumentError(
                f"`trial` and `budget` must not both be given, but got trial={self.trial} and "
                f"budget={self.budget}."
            )
        for name in self.formats:
            format_named(name)


def export(
    study: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    budget: Budget | None = None,
    format: str = "native",
    trial: int | None = None,
) -> Exported:
    """Write the best allocation of a study as a quantized model in a format of `igq.formats`.

    Without `budget` it is the space's own; within that the winner of the final round is best.
    `trial` takes the one of this number instead. Several formats, separated by commas, become
    folders of their names within `out`. `weights` is for weights that were moved since; they must
    be the same ones.

    Raises:
        ArtifactError: `out` exists already or cannot be written.
        InfeasibleBudgetError: even the cheapest allocation costs more than `budget`.
        InvalidArgumentError: there is no such format, or both a trial and a budget.
        StudyError: there is no study, no such trial that saw images, or the weights are others.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> exported.notes["space"]["name"]
    'demo'
    >>> pipeline.export("nowhere", "artifacts/nowhere")
    Traceback (most recent call last):
    pipeline.errors.StudyError: a study must hold study.json, but nowhere has none.
    """
    wanted = Wanted(formats_in(format), budget, trial)  # refuses before any work
    check_new(Path(out))
    opened = Study.open(Path(study), Path(weights) if weights else None)
    return export_study(opened, Path(out), wanted)


def export_study(study: Study, out: Path, wanted: Wanted) -> Exported:
    """Write a trial of an opened study; see `export`."""
    taken, final = _taken(study, wanted)
    quantized = quantized_of(study, taken.proposal.allocation)
    notes = notes_of(study, taken, final)
    return Exported(write(quantized, out, notes, wanted.formats), taken, notes)


def quantized_of(study: Study, allocation: Allocation) -> nn.Module:
    """Return the study's model with its weights and quantizers as an allocation chooses them."""
    changed, by_bits = study.calibration.weights(copy.deepcopy(study.model))
    weights = select_weights(by_bits, allocation, study.layers)
    candidates = study.calibration.candidates(study.model)
    return assemble(changed, candidates.select(allocation), weights)


def write(model: nn.Module, out: Path, notes: Mapping[str, Any], formats: Sequence[str]) -> Path:
    """Write a model in one format to a new path, or in several to folders of a new folder.

    Raises:
        ArtifactError: `out` exists already or cannot be written.
    """
    if len(formats) == 1:
        return format_named(formats[0])(model, out, notes)
    check_new(out)
    with appearing(out) as draft:
        for name in formats:
            format_named(name)(model, draft / name, notes)
    return out


def _taken(study: Study, wanted: Wanted) -> tuple[Trial, Final | None]:
    """Return the trial that is wanted, and the final round if it had part in it.

    Raises:
        StudyError: no trial completed within the budget, or none has the number.
    """
    if wanted.trial is not None:
        return _numbered(study, wanted.trial), study.final()
    limits = study.limits
    if wanted.budget is not None:
        profile = study.definition.profile
        most = most_cost(wanted.budget, study.space, study.layers, limits.table, profile)
        limits = check_budget(limits.with_budget(most), wanted.budget)
    final = _final(study, limits.budget)
    return _best(study, limits.budget, final), final


def _final(study: Study, budget: Number) -> Final | None:
    """Return the final round where its winner is the best within a budget; else None.

    It is where the winner is within the budget and no trial between the study's budget and this
    one could be better. A front (`--front`) has such trials.
    """
    final = study.final()
    if final is None:
        return None
    winner = next(t for t in study.trials() if t.number == final.winner)
    beyond = (t for t in completed(study.trials(), budget) if t.proposal.cost > study.budget)
    return final if winner.proposal.cost <= budget and next(beyond, None) is None else None


def _numbered(study: Study, number: int) -> Trial:
    for trial in study.trials():
        if trial.number == number and trial.kl is not None:
            return trial
    known = runs([trial.number for trial in study.trials() if trial.kl is not None])
    raise StudyError(
        f"`trial` must be the number of a trial that saw images, {known} in {study.folder.path}, "
        f"but got {number}; igq ui {study.folder.path} shows them."
    )


def runs(numbers: Sequence[int]) -> str:
    """Write ascending numbers as runs.

    >>> runs([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))


def _best(study: Study, budget: Number, final: Final | None) -> Trial:
    """Return the best trial within a budget.

    Raises:
        StudyError: no trial completed within it.
    """
    trials = study.trials()
    taken = chosen(trials, budget, final)
    if taken is None:
        unit = study.limits.table.unit
        cheapest = front(trials)[:1]
        known = "".join(f"; the cheapest has {unit.words(t.proposal.cost)}" for t in cheapest)
        raise StudyError(
            f"a study must have a trial that completed within the budget of {unit.words(budget)}, "
            f"but {study.folder.path} has none{known}."
        )
    return taken
