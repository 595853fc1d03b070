"""Studies compared with each other, from their validations.

Studies that differ in nothing but their seed, and so in their images, are one table with intervals
over seeds. The bests of studies that differ in more are compared where they saw the same
validation images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.analysis.comparison import Comparison, compared, over_seeds
from pipeline.errors import StudyError
from pipeline.evaluation.validation import BEST, Measured, Validation, load_validation
from pipeline.study.definition import digest
from pipeline.study.folder import Folder
from pipeline.study.seals import read_definition

_OF_A_SEED = ("schema", "id", "digest", "key", "seed", "images", "sources", "weights")
"""Fields in which draws of the same experiment may differ."""


@dataclass(frozen=True)
class Compared:
    """One table."""

    title: str
    over: str
    """The sample of its intervals: images or seeds."""
    rows: tuple[Comparison, ...]
    reference_top1: float | None

    def json(self) -> dict[str, Any]:
        """Return the table as plain data."""
        return {**vars(self), "rows": [row.json() for row in self.rows]}


def compare_studies(folders: Sequence[Path]) -> tuple[Compared, ...]:
    """Return a table for each experiment, and one of their bests where that is possible.

    Raises:
        StudyError: a folder holds no study that came to its end, or two hold the same one.
    """
    studies = [_read(folder) for folder in folders]
    keys = [study.definition["key"] for study in studies]
    if len(set(keys)) < len(keys):
        again = folders[next(i for i, key in enumerate(keys) if key in keys[:i])]
        raise StudyError(f"each study must be given once, but {again} is one that came before.")
    experiments: dict[str, list[_Study]] = {}
    for study in studies:
        experiments.setdefault(study.experiment, []).append(study)
    tables = [
        _table(_title(group), [s.validation for s in group]) for group in experiments.values()
    ]
    return (*tables, *_bests(list(experiments.values())))


@dataclass(frozen=True)
class _Study:
    folder: Path
    definition: dict[str, Any]
    validation: Validation

    @property
    def experiment(self) -> str:
        """A hash that it shares with the studies that differ in their seed alone."""
        return digest({k: v for k, v in self.definition.items() if k not in _OF_A_SEED})

    @property
    def images(self) -> str:
        """A hash of its validation images."""
        return str(self.definition["images"]["validation"])

    @property
    def best(self) -> Measured:
        return next(m for m in self.validation.measured if m.name == BEST)


def _read(path: Path) -> _Study:
    folder = Folder(path)
    definition = read_definition(folder.path)
    if not folder.validation.exists():
        raise StudyError(
            f"{path} must have ended to be compared, but has not: go on with igq search --resume."
        )
    return _Study(path, definition, load_validation(folder.validation))


def _table(title: str, validations: Sequence[Validation]) -> Compared:
    if len(validations) == 1:
        (only,) = validations
        return Compared(
            f"{title}: {only.images} images", "images", compared(only), only.reference_top1
        )
    rows, tops = over_seeds(validations), [v.reference_top1 for v in validations]
    known = [top for top in tops if top is not None]
    mean = sum(known) / len(known) if len(known) == len(tops) else None
    return Compared(f"{title}: {len(validations)} seeds", "seeds", rows, mean)


def _bests(experiments: Sequence[Sequence[_Study]]) -> Iterable[Compared]:
    """Yield the best of the first experiment beside those of the others, image by image."""
    first, *others = experiments
    joined = []
    for study in first:
        beside = [
            replace(other.best, name=str(other.folder))
            for group in others
            for other in group
            if other.images == study.images
        ]
        if others and len(beside) == len(others):
            measured = (study.best, *beside)
            joined.append(Validation(measured, study.validation.reference_top1))
    if joined and len(joined) == len(first):
        names = [[m.name for m in validation.measured[1:]] for validation in joined]
        joined = [_renamed(validation, names[0]) for validation in joined]
        yield _table(f"best of {_title(first)} beside the bests of the others", joined)


def _renamed(validation: Validation, names: Sequence[str]) -> Validation:
    best, *others = validation.measured
    named = (replace(other, name=name) for other, name in zip(others, names, strict=True))
    return replace(validation, measured=(best, *named))


def _title(group: Sequence[_Study]) -> str:
    folders = [str(study.folder) for study in group]
    return folders[0] if len(folders) == 1 else f"{folders[0]} ... {folders[-1]}"
