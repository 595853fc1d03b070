"""The registry of models in MLflow: versions of a name, one of which is the champion.

A version is a logged model of the run of its study. Beside the model it has `scores.json`: what it
loses on each of the images that its study kept for the comparison of rivals, so that the next
version can be compared with it image by image.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from igq.formats.integrity import read_json
from pipeline.errors import TrackingError
from pipeline.tracking.model import save
from pipeline.tracking.store import IMPATIENT, connect, find_study, reaching, runs_with

# isort: split
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

CHAMPION, CHALLENGER = "champion", "challenger"
SCORES = "scores.json"


@dataclass(frozen=True)
class Scores:
    """The losses of a model on images, as its version in the registry keeps them."""

    images: str
    """The fingerprint of the images."""
    weights: str
    """The fingerprint of the full-precision model that the KL is to."""
    kls: tuple[float, ...]
    """KL of each image in nats."""
    correct: tuple[bool, ...] | None
    """Whether the label of each is predicted; None without labels."""

    @property
    def kl(self) -> float:
        """The mean KL."""
        return sum(self.kls) / len(self.kls)


@dataclass(frozen=True)
class Champion:
    """The version that has the alias `champion`, on disk."""

    version: int
    artifact: Path
    scores: Scores | None
    """None for a version without them."""


@dataclass(frozen=True)
class Entry:
    """A model to register: its files, its scores, and what it says of itself."""

    artifact: Path
    scores: Scores
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    description: str


@dataclass(frozen=True)
class Registry:
    """A name in the registry of a store, and the runs that its next version is linked to."""

    uri: str
    name: str
    study: str
    """The key of the study."""
    trial: int
    experiment: str
    run: str
    """The id of the study's run."""
    trial_run: str | None
    """The id of the trial's run; None where it was not tracked."""

    @property
    def known(self) -> int | None:
        """The version that is this trial of this study already; None where there is none."""
        with reaching(self.uri):
            for version in connect(self.uri).search_model_versions(f"name = '{self.name}'"):
                tags = version.tags
                if (tags.get("igq.study"), tags.get("igq.trial")) == (self.study, str(self.trial)):
                    return int(version.version)
        return None

    @contextmanager
    def champion(self) -> Iterator[Champion | None]:
        """Give the champion, in a folder that goes away; None where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            with reaching(self.uri):
                found = _champion(client := connect(self.uri), self.name)
                if found is not None:
                    place = client.get_model_version_download_uri(self.name, found.version)
                    download_artifacts(place, dst_path=folder, tracking_uri=self.uri)
            yield None if found is None else _read(self.name, int(found.version), Path(folder))

    def add(self, entry: Entry, alias: str) -> int:
        """Log a model, register it, give it an alias; return its version."""
        with reaching(self.uri):
            client = connect(self.uri)
            logged = self._log(client, entry)
            _make_sure_of(client, self.name)
            made = client.create_model_version(
                self.name,
                logged.artifact_location,  # MLflow would look for models:/ID in its default store
                self.run,
                {**entry.tags, "igq.model": logged.model_id},
                description=entry.description,
                model_id=logged.model_id,
            )
            client.set_registered_model_alias(self.name, alias, made.version)
            return int(made.version)

    def _log(self, client: MlflowClient, entry: Entry) -> LoggedModel:
        """Log a model as the outcome of the study's run and of the trial's."""
        logged = client.create_logged_model(
            self.experiment, f"trial-{self.trial:04d}", self.run, dict(entry.tags)
        )
        identity = str(logged.model_id)
        known = Model(run_id=self.run, model_id=identity, model_uuid=identity)
        try:
            with tempfile.TemporaryDirectory() as folder:
                save(entry.artifact, Path(folder, "model"), known)
                text = json.dumps(asdict(entry.scores))
                Path(folder, "model", SCORES).write_text(text)
                client.log_model_artifacts(identity, str(Path(folder, "model")))
        except BaseException:
            client.finalize_logged_model(identity, "FAILED")
            raise
        client.finalize_logged_model(identity, "READY")
        for run in filter(None, (self.run, self.trial_run)):
            client.log_outputs(run, [LoggedModelOutput(identity, 0)])
        now = logged.creation_timestamp
        named = [
            Metric(key, value, now, 0, model_id=identity, run_id=self.run)
            for key, value in entry.metrics.items()
        ]
        client.log_batch(self.run, metrics=named)
        return logged


def open_registry(uri: str, name: str, study: str, trial: int) -> Registry:
    """Return a name in a store's registry, for a trial of a study that is in the store.

    Raises:
        TrackingError: the store cannot be reached or written, the name is none that MLflow takes,
            or the store does not have the study.
    """
    if not name.strip() or set(name) & set("/:'"):
        raise TrackingError(
            f"`register` must be a name without `/`, `:` and quotes, but got {name!r}."
        )
    found = find_study(uri, study)
    if found is None:
        raise TrackingError(
            f"`register` needs the store that the study was tracked in, but {uri} does not have "
            f"the study {study}; give that store with --tracking."
        )
    experiment, run = found
    with reaching(uri, **IMPATIENT):
        children = runs_with(connect(uri), experiment, "mlflow.parentRunId", run)
    of_trial = [r.info.run_id for r in children if r.data.tags.get("igq.trial") == str(trial)]
    return Registry(uri, name, study, trial, experiment, run, next(iter(of_trial), None))


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _make_sure_of(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _read(name: str, version: int, folder: Path) -> Champion:
    """Return the champion that lies in a folder.

    Raises:
        TrackingError: it is a model of another kind, or its scores are damaged.
    """
    described = next(folder.rglob("MLmodel"), folder / "MLmodel").parent
    manifest = next(described.glob("artifacts/*/manifest.json"), None)
    if manifest is None:
        raise TrackingError(
            f"`register` must name models of igq alone, but the champion of {name}, version "
            f"{version}, is of another kind: choose another name."
        )
    try:
        scores = _scores(described) if (described / SCORES).exists() else None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TrackingError(
            f"`register` needs the scores of the champion of {name}, version {version}, but they "
            f"are damaged: {error!r}. Register under another name, or remove the alias "
            f"`{CHAMPION}` from that version."
        ) from error
    return Champion(version, manifest.parent, scores)


def _scores(described: Path) -> Scores:
    """Read the scores beside a model.

    Raises:
        DamagedError: the file is none, or too large.
        KeyError, TypeError, ValueError: it does not hold scores.
    """
    content = read_json(described, SCORES)
    kls, correct = tuple(map(float, content["kls"])), content["correct"]
    if not kls:
        raise ValueError("there is no image")
    if correct is not None and len(correct := tuple(map(bool, correct))) != len(kls):
        raise ValueError(f"{len(kls)} images have {len(correct)} answers")
    return Scores(str(content["images"]), str(content["weights"]), kls, correct)
