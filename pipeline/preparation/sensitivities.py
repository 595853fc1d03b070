"""Sensitivities of a study's layers, from its cache where they were computed before."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from igq import Candidates
from igq.allocation import Sensitivity
from igq.layer import grouped
from igq.sensitivities import (
    DRAWS,
    Sums,
    composed_sensitivity,
    parts_passes,
    predicted_batches,
    predicted_from,
    predicted_passes,
    sensitivity_passes,
)
from pipeline.evaluation.work import Part, Workers
from pipeline.preparation.parts.cache import load_parts, load_sensitivity, save_sensitivity
from pipeline.preparation.parts.phases import PARTS, Common, Phase, cut, measuring, predict_batches
from pipeline.preparation.parts.shared import Wanted
from pipeline.preparation.purposes import SEARCH
from pipeline.preparation.study import Study
from pipeline.study.definition import digest
from pipeline.study.seals import write_sealed


@dataclass(frozen=True)
class Table:
    """The sensitivity of every setting to choose from, and the compute that it takes."""

    sensitivity: Sensitivity
    passes: int
    """Image-forward-passes."""


def sensing(study: Study, common: Common, workers: Workers) -> list[Phase]:
    """Return the phases that measure (Eq. 9) and predict the sensitivity of settings.

    Where bits are searched the parts of settings are measured, and nothing is predicted.
    """
    path, what = measured_file(study), f"sensitivities of {study.space.model.name}"
    every = grouped(study.layers) if common.weights is None else list(study.layers)
    passes = measured_passes(study, common.candidates)
    parts = measuring(path.stem, common, workers, passes, every)

    def finish(found: list[Mapping[str, Mapping[str, float]]]) -> None:
        rows = {name: row for some in found for name, row in some.items()}
        write_sealed(path, rows, path.stem)

    phase = Phase(Wanted(path, what), "measuring how much each layer matters", parts, finish)
    return [phase] if common.weights is not None else [phase, _predicting(study, common, workers)]


def _predicting(study: Study, common: Common, workers: Workers) -> Phase:
    path, images = predicted_file(study), len(common.images)
    batches = predicted_batches(common.candidates, images)
    pieces = cut([1.0] * batches, max(PARTS, 2 * workers.count()))
    passes = predicted_passes(images, len(common.candidates.num_groups))
    parts = [
        Part(f"{path.stem}: {a} to {b}", predict_batches, (a, b), passes * (b - a) / batches)
        for a, b in pieces
    ]

    def finish(found: list[Mapping[str, Sums]]) -> None:
        sums = [sums for some in found for sums in some.values()]
        save_sensitivity(path, predicted_from(common.candidates, sums, images))

    what = f"sensitivities of {study.space.model.name}, predicted"
    step = "predicting from gradients how much each layer matters"
    return Phase(Wanted(path, what), step, parts, finish)


def measured(study: Study, candidates: Candidates) -> Table:
    """Read the measured sensitivity of every setting.

    Raises:
        StudyError: the cache does not hold it.
    """
    path, limits, options = measured_file(study), study.limits, study.space.options
    passes = round(measured_passes(study, candidates))
    if not options.searches_bits:
        return Table(limits.ties.sum(load_sensitivity(path)), passes)
    return Table(composed_sensitivity(limits.ties, limits.table, load_parts(path), options), passes)


def predicted(study: Study, candidates: Candidates) -> Table | None:
    """Read the predicted sensitivity of every setting; None where bits are searched.

    Raises:
        StudyError: the cache does not hold it.
    """
    if study.space.options.searches_bits:
        return None
    passes = predicted_passes(len(study.images[SEARCH]), len(candidates.num_groups))
    return Table(study.limits.ties.sum(load_sensitivity(predicted_file(study))), passes)


def measured_passes(study: Study, candidates: Candidates) -> float:
    """Return the image-forward-passes that the measured sensitivities take."""
    options, images = study.space.options, images_measured(study)
    if options.searches_bits:
        return parts_passes(study.model, candidates.layers, options, images)
    return sensitivity_passes(study.model, candidates.layers, len(candidates.num_groups), images)


def images_measured(study: Study) -> int:
    """Return how many of the search images sensitivities are measured on."""
    return min(study.space.sensitivity_images, len(study.images[SEARCH]))


def kept(study: Study) -> dict[str, Sensitivity]:
    """Read the tables of single layers in a study's cache, by name; none where bits are searched.

    Nothing is computed: a table that is not there is left out.
    """
    if study.space.options.searches_bits:
        return {}
    files = {"measured": measured_file(study), "predicted": predicted_file(study)}
    return {name: load_sensitivity(path) for name, path in files.items() if path.exists()}


def measured_file(study: Study) -> Path:
    """Return the file of the measured sensitivities."""
    more = [study.space.sensitivity_images, asdict(study.definition.execution)]
    return _file(study, "harm", more)


def predicted_file(study: Study) -> Path:
    """Return the file of the predicted sensitivities."""
    return _file(study, "predicted", [DRAWS])


def _file(study: Study, name: str, more: Sequence[object]) -> Path:
    """Return the file of a table: its name has a hash of everything that the table follows from."""
    space = study.space
    weights = [space.weight_bits, space.weight_method] if space.options.searches_bits else []
    kept = study.calibration.candidates_file.stem
    key = digest([kept, *weights, study.definition.images[SEARCH], *more])
    return study.folder.cache / f"{name}_{key}.json"
