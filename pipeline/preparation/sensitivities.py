"""Sensitivities of a study's layers, from its cache where they were computed before."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from igq import predicted_sensitivity, sensitivity
from igq.allocation import Sensitivity
from igq.sensitivities import (
    DRAWS,
    composed_sensitivity,
    measure_parts,
    parts_passes,
    predicted_passes,
    sensitivity_passes,
)
from pipeline.evaluation.task import Task
from pipeline.files import read_json, write_json
from pipeline.preparation.cache import load_sensitivity, save_sensitivity
from pipeline.preparation.study import SEARCH, Study
from pipeline.study.definition import digest
from pipeline.study.progress import Display


@dataclass(frozen=True)
class Table:
    """The sensitivity of every setting to choose from, and the compute that it takes."""

    sensitivity: Sensitivity
    passes: int
    """Image-forward-passes."""


def measured(study: Study, task: Task, display: Display) -> Table:
    """Measure the sensitivity of every setting (Eq. 9), on some of the search images."""
    space, limits = study.space, study.limits
    images = task.images[: space.sensitivity_images]
    path = _measured_file(study)
    if not space.options.searches_bits:
        if not path.exists():
            save_sensitivity(path, _measure(study.model, task, len(images), display))
        candidates = task.candidates
        groups = len(candidates.num_groups)
        count = sensitivity_passes(study.model, candidates.layers, groups, len(images))
        return Table(limits.ties.sum(load_sensitivity(path)), round(count))
    if not path.exists():
        progress = display.step(_MEASURING)
        write_json(
            path,
            measure_parts(
                study.model, task.candidates, task.weights, space.options, images, progress
            ),
        )
    count = parts_passes(study.model, task.candidates.layers, space.options, len(images))
    table = composed_sensitivity(limits.ties, limits.table, read_json(path), space.options)
    return Table(table, round(count))


def predicted(study: Study, task: Task, display: Display) -> Table | None:
    """Predict the sensitivity from gradients on all search images; None where bits are searched."""
    if study.space.options.searches_bits:
        return None
    path = _file(study, "predicted", [DRAWS])
    if not path.exists():
        progress = display.step("predicting from gradients how much each layer matters")
        table = predicted_sensitivity(study.model, task.candidates, task.images, progress=progress)
        save_sensitivity(path, table)
    passes = predicted_passes(len(task.images), len(task.candidates.num_groups))
    return Table(study.limits.ties.sum(load_sensitivity(path)), passes)


def kept(study: Study) -> dict[str, Sensitivity]:
    """Read the tables of single layers in a study's cache, by name; none where bits are searched.

    Nothing is computed: a table that is not there is left out.
    """
    if study.space.options.searches_bits:
        return {}
    files = {"measured": _measured_file(study), "predicted": _file(study, "predicted", [DRAWS])}
    return {name: load_sensitivity(path) for name, path in files.items() if path.exists()}


_MEASURING = "measuring how much each layer matters"


def _measure(model: nn.Module, task: Task, images: int, display: Display) -> Sensitivity:
    progress = display.step(_MEASURING)
    return sensitivity(
        model,
        task.candidates,
        task.images[:images],
        task.chunk_size,
        task.execution,
        progress,
    )


def _measured_file(study: Study) -> Path:
    more = [study.space.sensitivity_images, asdict(study.definition.execution)]
    return _file(study, "harm", more)


def _file(study: Study, name: str, more: Sequence[object]) -> Path:
    """Return the file of a table: its name has a hash of everything that the table follows from."""
    space = study.space
    weights = [space.weight_bits, space.weight_method] if space.options.searches_bits else []
    kept = study.calibration.candidates_file.stem
    key = digest([kept, *weights, study.definition.images[SEARCH], *more])
    return study.folder.cache / f"{name}_{key}.json"
