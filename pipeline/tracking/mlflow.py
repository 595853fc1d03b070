"""Studies and trials in MLflow: one parent run for each study, one nested run for each trial.

Only the driver writes, from threads of its own: a search never waits. A study that starts again
finds its runs by tags, `igq.study` (its key) and `igq.trial` (a number), and completes what was cut
off.

`docs/reference/mlflow.md` lists the names, `logged` makes those of a trial.
"""

import json
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf
from pathlib import Path

from igq.costs import Number
from igq.settings import plain
from pipeline.study.trials import State, Trial
from pipeline.tracking import logged
from pipeline.tracking.base import Files, Input, Metrics, StudyRun, Tables, Tags
from pipeline.tracking.store import IMPATIENT, opened, reaching, runs_with, save_view
from pipeline.tracking.uris import without_password

# isort: split
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

WRITERS = 8
"""Trials that are written to a server at once: a far one answers each request late (our choice)."""
ENDED = {State.COMPLETE: "FINISHED", State.FAILED: "FAILED"}
"""The status of a run by the state of its trial; KILLED for every other state."""
LONGEST = 5000
"""Characters of a tag that every store takes."""
BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""Of a trial's requests: 14 s, where MLflow's own seven take four minutes."""


class MlflowTracker:
    """A tracker that writes to an MLflow server, or to a store such as `sqlite_uri` names.

    An error of the writing thread is raised by the next call: start and record again to mend it.

    Nothing is connected to, and no store is made, before `start`. `layers` makes each layer of a
    trial a parameter too, beside the means.

    >>> MlflowTracker("http://localhost:5000").location
    'http://localhost:5000/#/experiments/'
    """

    def __init__(
        self,
        uri: str,
        experiment: str = "igq",
        artifacts: Path | None = None,
        layers: bool = False,
    ) -> None:
        self._uri, self._experiment, self._artifacts = uri, experiment, artifacts
        self._parent, self._running, self._id, self._layers = "", False, "", layers
        self._viewed = False
        writers = 1 if uri.startswith("sqlite") else WRITERS
        self._writer = ThreadPoolExecutor(max_workers=writers)
        self._queued: deque[Future[None]] = deque()

    def start(self, study: StudyRun) -> None:
        self._flush()
        with reaching(self._uri, **IMPATIENT):
            self._client, self._id = opened(self._uri, self._experiment, self._artifacts)
        with reaching(self._uri):
            self._parent = self._open(study)
            found = runs_with(self._client, self._id, "mlflow.parentRunId", self._parent)
        children = {int(run.data.tags.get("igq.trial", -1)): run for run in found}
        self._cut_off = {n: run for n, run in children.items() if run.info.status == "RUNNING"}
        self._recorded = children.keys() - self._cut_off.keys()
        self._study = study
        self._best = min((_kl_within(run, study.budget) for run in found), default=inf)
        self._running = True

    def record(self, trial: Trial) -> None:
        assert self._running, "`start` comes first"
        while self._queued and self._queued[0].done():
            self._queued[0].result()  # raises what went wrong, again and again
            self._queued.popleft()
        if trial.number not in self._recorded:
            self._recorded.add(trial.number)
            if not self._viewed:
                self._viewed = True
                self._queued.append(self._writer.submit(self._save_view, trial))
            now, best = time.time_ns() // 10**6, self._is_best(trial)
            self._queued.append(self._writer.submit(self._write, trial, now, best))

    def finish(self, metrics: Metrics, tags: Tags, tables: Tables, files: Files) -> None:
        assert self._running, "`start` comes first"
        self._flush()
        now = time.time_ns() // 10**6
        tags = {name: self._linked(text) for name, text in tags.items()}
        with reaching(self._uri):
            self._log(self._parent, [Metric(k, v, now, 0) for k, v in metrics.items()], {}, tags)
            for name, table in tables.items():
                text = json.dumps(table, indent=2)
                self._client.log_text(self._parent, text, name)
            for file in files:
                self._client.log_artifact(self._parent, str(file))
            self._client.set_terminated(self._parent, "FINISHED")
        self._running = False

    def interrupt(self) -> None:
        if not self._running:
            return
        self._running = False
        try:
            self._flush()
        finally:
            with reaching(self._uri, **IMPATIENT):
                self._client.set_terminated(self._parent, "KILLED")

    @property
    def location(self) -> str:
        uri, run = without_password(self._uri), self._parent
        if uri.startswith("http"):
            return f"{uri.rstrip('/')}/#/experiments/{self._id}" + (f"/runs/{run}" if run else "")
        return f"{uri}, experiment {self._experiment}" + (f", run {run}" if run else "")

    def _open(self, study: StudyRun) -> str:
        """Return the id of the study's parent run, RUNNING, with all that is known of it."""
        found = runs_with(self._client, self._id, "igq.study", study.key)
        tags = {"igq.study": study.key}
        run = found[0] if found else self._client.create_run(self._id, None, tags, study.name)
        identity = str(run.info.run_id)
        params = {study.budget_name: str(study.budget)} | {
            k: str(v) for k, v in study.params.items()
        }
        missing = {k: v for k, v in params.items() if k not in run.data.params}
        self._log(identity, [], missing, logged.surroundings(study.system))
        self._client.update_run(identity, "RUNNING", study.name)
        text = json.dumps({"name": study.name, **params}, indent=1)
        self._client.log_text(identity, text, "study.json")  # where this fails, no work is lost
        if study.inputs and not (run.inputs and run.inputs.dataset_inputs):
            self._client.log_inputs(identity, [_dataset(one) for one in study.inputs])
        return identity

    def _linked(self, text: str) -> str:
        """Return a text whose links `artifact:NAME` lead to artifacts of the study's run."""
        return text.replace("(artifact:", f"(get-artifact?run_uuid={self._parent}&path=")

    def _is_best(self, trial: Trial) -> bool:
        """Return whether a trial has the least KL within the budget so far."""
        kl = inf if trial.kl is None else trial.kl
        counts = trial.state is State.COMPLETE and trial.proposal.cost <= self._study.budget
        if not counts or kl >= self._best:
            return False
        self._best = kl
        return True

    def _write(self, trial: Trial, now: int, best: bool) -> None:
        """Write one trial, or the rest of one that was cut off."""
        milliseconds = round(trial.seconds * 1000)
        with reaching(self._uri, **BRIEFLY):
            cut_off = self._cut_off.get(trial.number)
            run = cut_off or self._create(trial, now - milliseconds)
            at, status = run.info.start_time + milliseconds, ENDED.get(trial.state, "KILLED")
            identity, params = run.info.run_id, logged.params(trial, self._layers)
            rest = logged.tags(trial, self._study.limits) if cut_off else {}
            self._log(identity, _metrics(trial, at), params, rest)
            _keep_allocation(trial, get_artifact_repository(run.info.artifact_uri, self._uri))
            self._client.set_terminated(identity, status, at)
            if best:
                point = Metric("best_kl", trial.observation.kl, at, trial.number)
                self._log(self._parent, [point], {}, {})

    def _save_view(self, trial: Trial) -> None:
        """Keep the view of the study's trials, whose parameters are those of this one."""
        with reaching(self._uri, **BRIEFLY):
            save_view(self._client, self._id, self._parent, sorted(logged.params(trial)))

    def _create(self, trial: Trial, begin: int) -> Run:
        """Make the run of a trial, with all its tags: each further request costs a search time."""
        own = {"mlflow.parentRunId": self._parent, "igq.trial": str(trial.number)}
        tags = own | _fitting(logged.tags(trial, self._study.limits))
        return self._client.create_run(self._id, begin, tags, logged.run_name(trial))

    def _log(self, run: str, metrics: list[Metric], params: Mapping[str, str], tags: Tags) -> None:
        """Log all in as few requests, of 100 parameters each, and as long tags as MLflow takes."""
        ps = [Param(key, value) for key, value in params.items()]
        ts = [RunTag(key, value) for key, value in _fitting(tags).items()]
        for i in range(0, max(len(metrics), len(ps), len(ts)), 100):
            part = slice(i, i + 100)
            self._client.log_batch(run, metrics[part], ps[part], ts[part])

    def _flush(self) -> None:
        """Wait until all is written, or a write fails."""
        queued, self._queued = self._queued, deque()
        try:
            for write in queued:
                write.result()
        finally:
            for write in queued:
                write.cancel()


def _fitting(tags: Tags) -> dict[str, str]:
    """Return tags whose values are as long as MLflow takes them."""
    return {key: value[:LONGEST] for key, value in tags.items()}


def _keep_allocation(trial: Trial, artifacts: ArtifactRepository) -> None:
    """Write a trial's allocation to the artifacts of its run, whose place is known already."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "allocation.json")
        path.write_text(json.dumps(plain(trial.proposal.allocation), indent=1))
        artifacts.log_artifact(str(path))


def _metrics(trial: Trial, at: int) -> list[Metric]:
    running = [Metric("running_kl", kl, at, images) for images, kl in logged.running_kl(trial)]
    return [Metric(key, value, at, 0) for key, value in logged.metrics(trial).items()] + running


def _kl_within(run: Run, budget: Number) -> float:
    """Return the KL of a trial's run; infinity where it has none or breaks the budget."""
    metrics = run.data.metrics
    return float(metrics.get("kl", inf)) if metrics.get("bops", 0.0) <= budget else inf


def _dataset(given: Input) -> DatasetInput:
    """Return images as MLflow's dataset, in the context of their purpose."""
    source = json.dumps({"uri": given.source})
    profile = json.dumps({"images": given.images})
    dataset = Dataset(given.source, given.digest, "local", source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", given.purpose)])
