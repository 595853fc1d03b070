"""An MLflow server or store: opened, its experiment found or made, its runs found by a tag."""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.errors import TrackingError
from pipeline.tracking.moved import beside, bring_artifacts
from pipeline.tracking.uris import is_database, is_race, opening, refusal, try_sqlite
from pipeline.tracking.views import TAG, view

# MLflow reads these while it is imported: report on nobody, and print nothing of its migrations.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.tracking._tracking_service import utils

# Whatever it logs there, a stack and a statement of SQL, it raises as well; we tell it in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
ATTEMPTS, PAUSE = 6, 1.0
"""Attempts to open a store that another process makes, and seconds after the first of them."""
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "PGCONNECT_TIMEOUT": "8",
}
DELETED = "deleted"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The tag by which MLflow shows pages of training, not of chats with language models."""


@contextmanager
def reaching(uri: str, **requests: str) -> Iterator[None]:
    """Raise any error as a TrackingError; the user's settings come before `requests`."""
    added = {key: value for key, value in requests.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        raise refusal(uri, error) from error
    finally:
        for key in added:
            os.environ.pop(key, None)


def opened(uri: str, name: str, artifacts: Path | None) -> tuple[MlflowClient, str]:
    """Return a client and the experiment's id; wait where another process makes the store.

    Raises:
        TrackingError: the experiment was deleted.
    """
    for attempt in range(ATTEMPTS):
        try:
            with opening(uri):
                client = connect(uri)
                return client, _experiment_id(client, name, uri, artifacts)
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not is_race(error):
                raise
            time.sleep(PAUSE * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def connect(uri: str) -> MlflowClient:
    """Return a client; a store is tried first, because MLflow would retry for minutes.

    MLflow remembers for the whole process where a run's artifacts lie, by the run's id alone, which
    a copy of a store has as well: it is made to look again.
    """
    getattr(utils, "_artifact_repos_cache", {}).clear()
    if uri.startswith("sqlite"):
        try_sqlite(uri)
        make_sqlite(uri)
    elif is_database(uri):
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    return MlflowClient(tracking_uri=uri)


def make_sqlite(uri: str) -> None:
    """Make the tables of a SQLite store that has none, without waiting for the disk.

    MLflow makes them in a hundred steps, and has each reach the disk. Here they appear at once, and
    a store that is cut off in the making leaves none behind. Of processes that begin together, one
    makes them.
    """
    path = Path(uri.partition("///")[2]).resolve()
    if path.stat().st_size:
        return
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir(), f"igq-store-{digest}.lock")):
        if not path.stat().st_size:
            _make_sqlite(path)


def _make_sqlite(path: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
    from sqlalchemy import event

    with tempfile.TemporaryDirectory(prefix=".making", dir=path.parent) as folder:
        made = Path(folder, path.name)
        engine = create_sqlalchemy_engine(f"sqlite:///{made}")
        event.listen(engine, "connect", _leave_to_the_system)
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()
        made.replace(path)


def _leave_to_the_system(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def find_study(uri: str, key: str) -> tuple[str, str] | None:
    """Return the ids of a study's experiment and run; None where the store has none.

    Places of artifacts are put right first, where a SQLite store was moved.

    Raises:
        TrackingError: the store cannot be opened.
    """
    with reaching(uri, **IMPATIENT), opening(uri):
        client = connect(uri)
        experiments = client.search_experiments()
        if uri.startswith("sqlite"):
            for one in experiments:
                bring_artifacts(uri, str(one.artifact_location))
        for one in experiments:
            if found := runs_with(client, one.experiment_id, "igq.study", key):
                return found[0].info.experiment_id, found[0].info.run_id
    return None


def save_view(client: MlflowClient, experiment: str, run: str, params: Sequence[str]) -> None:
    """Keep the view of a study's trials that have such parameters in their experiment."""
    client.set_experiment_tag(experiment, f"{TAG}{run}", view(run, params))


def bring_view(uri: str, experiment: str, run: str) -> None:
    """Keep the view of a study's trials where a study of before has none."""
    with reaching(uri, **IMPATIENT):
        client = connect(uri)
        if f"{TAG}{run}" in client.get_experiment(experiment).tags:
            return
        query = f"tags.`mlflow.parentRunId` = '{run}'"
        for trial in client.search_runs([experiment], query, max_results=1):
            save_view(client, experiment, run, sorted(trial.data.params))


def runs_with(client: MlflowClient, experiment: str, tag: str, value: str) -> list[Run]:
    """Return all runs of an experiment that have a value of a tag."""
    query = f"tags.`{tag}` = '{value}'"
    runs = list(page := client.search_runs([experiment], query))
    while page.token:
        page = client.search_runs([experiment], query, page_token=page.token)
        runs += page
    return runs


def _experiment_id(client: MlflowClient, name: str, uri: str, artifacts: Path | None) -> str:
    """Return the experiment's id; a new one keeps artifacts beside a SQLite store."""
    if found := client.get_experiment_by_name(name):
        _check_alive(found, uri)
        if artifacts is None and uri.startswith("sqlite"):
            bring_artifacts(uri, str(found.artifact_location))
        return str(found.experiment_id)
    if artifacts is None and uri.startswith("sqlite"):
        artifacts = beside(uri)
    location = artifacts.resolve().as_uri() if artifacts else None
    return client.create_experiment(name, artifact_location=location, tags=KIND)


def _check_alive(experiment: Experiment, uri: str) -> None:
    if experiment.lifecycle_stage == DELETED:
        raise TrackingError(
            f"`experiment` must not be a deleted one, but {experiment.name} is: give another with "
            f"--experiment, or bring it back with `MLFLOW_TRACKING_URI={uri} mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`."
        )
