"""From a study to a model that runs, and what that model reaches."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from igq import ArtifactError, Score, evaluate, layers, load, save
from igq.evaluation import accuracy, log_probabilities
from igq.mixed import select_weights
from igq.vit import accelerate, architecture, assemble, remake
from pipeline.budget import resolve
from pipeline.calibrating import Calibration, Steps
from pipeline.config import Engine, Folder, space_of
from pipeline.data import Preprocessing, load_all, open_source
from pipeline.errors import StudyError
from pipeline.execution import execution
from pipeline.files import read_json
from pipeline.final import chosen, load_final
from pipeline.preparation import costs, load_model
from pipeline.proposals import read_trials
from pipeline.study import Trial, front
from search_spaces import Budget


@dataclass(frozen=True)
class Exported:
    """A model on disk, and the trial whose allocation it has."""

    path: Path
    trial: Trial
    notes: Mapping[str, Any]


def export(
    study: Path, out: Path, weights: Path | None = None, wanted: Budget | None = None
) -> Exported:
    """Write the best allocation of a study, within the budget `wanted`, as a quantized model.

    Without `wanted` the budget is the space's; within that the winner of the final round is best.
    `weights` is for weights that were moved since; they must be the same ones.

    Raises:
        ArtifactError: `out` exists already or cannot be written.
        InfeasibleBudgetError: even the cheapest allocation costs more than `wanted`.
        StudyError: there is no study, no trial completed, or the weights are others.
    """
    folder = Folder(study)
    written = read_json(folder.study)
    space = space_of(written)
    noted = Path(written["weights"]) if written["weights"] else None
    model, key = load_model(space, weights or noted)
    _check_same(key, written["model"])
    listed, table, own = costs(space, model)
    budget = own if wanted is None else resolve(wanted, listed, table, *space.base_bits)
    trials = read_trials(folder.journal, space.name, table)
    final = load_final(folder.final) if budget == own else None
    taken = chosen(trials, budget, final)
    if taken is None:
        known = "".join(f"; the cheapest has {t.proposal.bops:.4g}" for t in front(trials)[:1])
        raise StudyError(
            f"a study must have a trial that completed within the budget of {budget:.4g} BOPs, "
            f"but {study} has none{known}."
        )
    kept = Calibration(folder, space, written["model"], written["images"]["calibration"])
    allocation = taken.proposal.allocation
    changed, by_bits = kept.weights(copy.deepcopy(model))
    weights_of = next(iter(by_bits.values()))
    if space.mixed:
        weights_of = select_weights(by_bits, allocation, listed)
    quantized = assemble(changed, kept.candidates(model).select(allocation), weights_of)
    notes = {
        "preprocessing": asdict(Preprocessing.of(model)),
        "space": written["space"],
        "study": written["key"],
        "model": written["model"],
        "trial": taken.number,
        "bops": taken.proposal.bops,
        "size": taken.proposal.size,
        "overhead": table.overhead(taken.proposal.bops),
        "search_kl": taken.kl,
        "final_kl": None if final is None else final.kl(taken.number),
        "result": _result(folder, taken),
    }
    return Exported(save(quantized, out, notes), taken, notes)


@dataclass(frozen=True, eq=False)
class Measured:
    """What an exported model reaches on images, beside what was noted when it was exported."""

    score: Score
    images: int
    fingerprint: str
    reference_top1: float | None
    notes: Mapping[str, Any]


def evaluate_artifact(
    path: Path,
    images: str,
    weights: Path | None,
    steps: Steps = lambda name: lambda share: None,
    engine: Engine = Engine.AUTO,
) -> Measured:
    """Score an exported model on all images of a source.

    With `weights`, the full-precision model's, the score has the KL to its predictions.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or no study was exported to it.
        DataError: the images cannot be found or read.
        StudyError: the weights are others than those that were searched.
        WeightsError: the weights do not fit.
    """
    artifact = load(path)
    if "preprocessing" not in artifact.notes:
        raise ArtifactError(
            f"{path} must have been written by igq export: it notes no preprocessing."
        )
    preprocessing = Preprocessing(**artifact.notes["preprocessing"])
    space = space_of(artifact.notes)
    model, key = (None, "") if weights is None else load_model(space, weights)
    if model is not None:
        _check_same(key, artifact.notes["model"])
    source = open_source(images, preprocessing)
    loaded = load_all(source, steps("reading images"))
    advance, done = steps("evaluating"), 0

    def count(batch: int) -> None:
        nonlocal done
        done += batch
        advance(done / len(loaded) / (1 if model is None else 2))

    reference = None if model is None else log_probabilities(model, loaded.values, progress=count)
    listed = layers(remake(architecture(artifact.model)))
    chosen = execution(engine, listed, len(loaded), "cpu")
    quantized = accelerate(artifact.model, chosen)
    score = evaluate(quantized, loaded.values, reference, loaded.labels, progress=count)
    top1 = None
    if reference is not None and loaded.labels is not None:
        top1 = accuracy(reference, loaded.labels)
    return Measured(score, len(loaded), loaded.fingerprint, top1, artifact.notes)


def _result(folder: Folder, taken: Trial) -> dict[str, Any] | None:
    """What the search noted in the end of this trial; None if that was of another, or never."""
    if not folder.result.exists():
        return None
    result = dict(read_json(folder.result))
    return result if result["best"]["trial"] == taken.number else None


def _check_same(found: str, expected: str) -> None:
    if found != expected:
        raise StudyError(
            f"`weights` must be those that were searched, whose hash is {expected}, "
            f"but got {found}."
        )
