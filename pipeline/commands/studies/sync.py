"""Bring MLflow up to a study: its journal is the truth, and writing again changes nothing."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.studies.result import Result
from pipeline.commands.studies.search import study_run
from pipeline.preparation.study import Study
from pipeline.searching.result import Found, publish
from pipeline.study.folder import exclusive
from pipeline.study.seals import read_sealed
from pipeline.tracking import Tracker
from pipeline.tracking.uris import tracked_at


@dataclass(frozen=True)
class Synced:
    """A study that MLflow has, all of it.

    >>> Synced("sqlite:////studies/demo/mlflow.db", trials=4, finished=True).trials
    4
    """

    location: str
    trials: int
    finished: bool
    """Whether the search has come to its end, so that its result is there too."""


def sync(
    study: str | Path, tracking: Tracker | str | None = None, weights: str | Path | None = None
) -> Synced:
    """Write the trials and the result of a study that MLflow does not have; those it has stay.

    Args:
        study: the study's folder.
        tracking: the URI of an MLflow server or store, or a tracker; by default where the search
            wrote to.
        weights: the same weights, where the file was moved.

    Raises:
        StudyError: there is no study, or a search has it open.
        TrackingError: the server or store cannot be reached.

    >>> import pipeline
    >>> sync("studies/demo", pipeline.InMemoryTracker()).trials
    4
    """
    opened = Study.open(Path(study), Path(weights) if weights else None)
    folder = opened.folder
    tracker = _tracker(tracking, folder.path)
    with exclusive(folder, resume=True):
        system = read_sealed(folder.system) if folder.system.exists() else {}
        tracker.start(study_run(opened, system))
        trials = opened.trials()
        for trial in trials:
            tracker.record(trial)
        finished = folder.result.exists() and folder.validation.exists()
        if finished:
            _publish(opened, tracker)
        else:
            tracker.interrupt()
    return Synced(tracker.location, len(trials), finished)


def _tracker(tracking: Tracker | str | None, folder: Path) -> Tracker:
    if tracking is None or isinstance(tracking, str):
        from pipeline.tracking.mlflow import MlflowTracker  # MLflow takes seconds to load

        uri = tracking or tracked_at(folder).partition("/#/")[0]
        return MlflowTracker(uri)
    return tracking


def _publish(opened: Study, tracker: Tracker) -> None:
    result = Result.of(opened)
    rows, folder = result.comparisons, opened.folder
    found = Found(result.trials, result.best, result.final, int(rows[0].passes))
    drawn = sorted(folder.figures.glob("*.png"))
    publish(tracker, opened, found, rows, read_sealed(folder.result), drawn)
