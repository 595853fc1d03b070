"""The contract of every tracker, on the double and on MLflow; then MLflow's own faults."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sqlalchemy import create_engine

from igq import Allocation, Observation, Unit
from igq.settings import plain
from pipeline.errors import TrackingError
from pipeline.study.trials import Origin, Proposal, State, Trial
from pipeline.tracking import InMemoryTracker, Input, StudyRun, Tracker, sqlite_uri
from pipeline.tracking.mlflow import MlflowTracker
from pipeline.tracking.server import serve
from pipeline.tracking.store import IMPATIENT

ROOT = Path(__file__).resolve().parents[2]
STUDY = StudyRun("vit_tiny_w4a4", "0123abcd", {"model": "vit_tiny", "bits": 4, "seed": 0}, 900)
ALLOCATION = Allocation.of({"blocks.0.attn.qkv": 8, "blocks.0.mlp.fc1": 2})
UNREACHABLE = "`tracking` must be the URI of a reachable MLflow server or store, but got "
ADVICE = ". Start it, or mend the URI; without --tracking a store in --out is used."
OF_FILES = ". Make it a file that can be written, or give another store with --tracking."


def proposal(number: int) -> Proposal:
    return Proposal(number, Origin.SAMPLER, ALLOCATION, {Unit.BOPS: 800})


def complete(number: int) -> Trial:
    return Trial(
        proposal(number), State.COMPLETE, Observation((1.0, 2.0, 3.0, 4.0)), 2.5, None, (2, 2)
    )


def pruned(number: int) -> Trial:
    return Trial(proposal(number), State.PRUNED, Observation((1.0, 2.0, 3.0)), 1.5, None, (1, 2))


def over_budget(number: int) -> Trial:
    return Trial(proposal(number), State.OVER_BUDGET)


def failed(number: int) -> Trial:
    return Trial(proposal(number), State.FAILED, seconds=0.5, error="CUDA\nout of memory")


def finish(tracker: Tracker) -> None:
    tracker.finish({"kl": 2.5}, {"igq.best": "0"}, {"allocation.json": plain(ALLOCATION)}, [])


@dataclass
class Kept:
    """The records of a tracker."""

    status: str | None
    trials: dict[int, tuple[str, str | None]]
    curves: dict[int, list[tuple[int, float]]]
    tables: dict[str, Any]


@dataclass
class Backend:
    """One kind of tracker: opening it again finds what was kept."""

    open: Callable[[], Tracker]
    kept: Callable[[], Kept]


def in_memory() -> Backend:
    tracker = InMemoryTracker()

    def kept() -> Kept:
        trials = {n: (str(t.state), t.error) for n, t in tracker.trials.items()}
        curves = {n: list(zip(steps(t), t.curve, strict=True)) for n, t in tracker.trials.items()}
        tables = tracker.results[2] if tracker.results else {}
        return Kept(tracker.status, trials, curves, {k: dict(v) for k, v in tables.items()})

    return Backend(lambda: tracker, kept)


def steps(trial: Trial) -> list[int]:
    return [sum(trial.chunks[: i + 1]) for i in range(len(trial.chunks))]


def on_mlflow(folder: Path) -> Backend:
    def kept() -> Kept:
        client, parent = MlflowClient(sqlite_uri(folder)), parent_run(folder)
        runs = children(folder)
        numbers = [int(run.data.tags["igq.trial"]) for run in runs]
        assert len(numbers) == len(set(numbers))
        trials = dict(zip(numbers, map(outcome, runs), strict=True))
        histories = [client.get_metric_history(r.info.run_id, "running_kl") for r in runs]
        curves = [[(m.step, m.value) for m in history] for history in histories]
        artifacts = Path(unquote(urlsplit(parent.info.artifact_uri).path))
        tables = {path.name: json.loads(path.read_text()) for path in artifacts.glob("*.json")}
        assert tables.pop("study.json")["model"] == "vit_tiny"
        return Kept(parent.info.status, trials, dict(zip(numbers, curves, strict=True)), tables)

    return Backend(lambda: MlflowTracker(sqlite_uri(folder)), kept)


def outcome(run: Run) -> tuple[str, str | None]:
    return run.data.tags["igq.state"], run.data.tags.get("igq.error")


def runs(folder: Path, query: str) -> list[Run]:
    client = MlflowClient(sqlite_uri(folder))
    experiment = client.get_experiment_by_name("igq")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], query))


def parent_run(folder: Path) -> Run:
    [run] = runs(folder, f"tags.`igq.study` = '{STUDY.key}'")
    return run


def children(folder: Path) -> list[Run]:
    """As MLflow's interface finds nested runs, in the order of their trials."""
    query = f"tags.`mlflow.parentRunId` = '{parent_run(folder).info.run_id}'"
    return sorted(runs(folder, query), key=lambda run: int(run.data.tags["igq.trial"]))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without an experiment: migrations take seconds, copies do not."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowClient(sqlite_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty store; the current directory is another one."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    folder = tmp_path / "my store"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(params=["in_memory", "mlflow"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "in_memory":
        return in_memory()
    return on_mlflow(request.getfixturevalue("store"))


# Every tracker


@pytest.mark.slow
def test_a_study_is_kept_from_start_to_finish(backend: Backend) -> None:
    tracker = backend.open()
    tracker.start(STUDY)
    assert backend.kept().status == "RUNNING"
    for trial in (complete(0), pruned(1), over_budget(2), failed(3)):
        tracker.record(trial)
    finish(tracker)

    assert backend.kept() == Kept(
        status="FINISHED",
        trials={
            0: ("complete", None),
            1: ("pruned", None),
            2: ("over_budget", None),
            3: ("failed", "CUDA\nout of memory"),
        },
        curves={0: [(2, 1.5), (4, 2.5)], 1: [(1, 1.0), (3, 2.0)], 2: [], 3: []},
        tables={"allocation.json": plain(ALLOCATION)},
    )


@pytest.mark.slow
def test_a_trial_recorded_twice_is_kept_once_as_it_first_was(backend: Backend) -> None:
    tracker = backend.open()
    tracker.start(STUDY)
    tracker.record(complete(0))
    tracker.record(failed(0))
    finish(tracker)
    assert backend.kept().trials == {0: ("complete", None)}


@pytest.mark.slow
def test_an_interrupted_study_continues_with_nothing_twice(backend: Backend) -> None:
    tracker = backend.open()
    tracker.start(STUDY)
    tracker.record(complete(0))
    tracker.interrupt()
    assert backend.kept().status == "KILLED"
    assert list(backend.kept().trials) == [0]

    again = backend.open()
    again.start(STUDY)
    assert backend.kept().status == "RUNNING"
    again.record(complete(0))
    again.record(pruned(1))
    finish(again)
    assert backend.kept().status == "FINISHED"
    assert backend.kept().trials == {0: ("complete", None), 1: ("pruned", None)}


@pytest.mark.slow
def test_a_finished_study_may_finish_again(backend: Backend) -> None:
    for number in (0, 1):
        tracker = backend.open()
        tracker.start(STUDY)
        tracker.record(complete(number))
        finish(tracker)
    assert sorted(backend.kept().trials) == [0, 1]


def test_interrupting_is_harmless_when_nothing_is_open(backend: Backend) -> None:
    tracker = backend.open()
    tracker.interrupt()
    tracker.start(STUDY)
    finish(tracker)
    tracker.interrupt()
    assert backend.kept().status == "FINISHED"


def test_another_study_has_its_own_trials(backend: Backend) -> None:
    tracker = backend.open()
    tracker.start(replace(STUDY, key="another"))
    tracker.record(complete(0))
    tracker.interrupt()
    tracker.start(STUDY)
    assert backend.kept().trials == {}


def test_a_tracker_says_where_it_keeps_a_study(backend: Backend) -> None:
    assert backend.open().location


# MLflow


def record(folder: Path, *trials: Trial) -> list[Run]:
    tracker = MlflowTracker(sqlite_uri(folder))
    tracker.start(STUDY)
    for trial in trials:
        tracker.record(trial)
    finish(tracker)
    return children(folder)


def test_the_parent_run_says_what_defines_the_study_and_what_came_of_it(store: Path) -> None:
    record(store)
    parent = parent_run(store)
    assert parent.info.run_name == "vit_tiny_w4a4"
    expected = {"model": "vit_tiny", "bits": "4", "seed": "0", "budget_bops": "900"}
    assert parent.data.params == expected
    assert parent.data.metrics == {"kl": 2.5}
    assert parent.data.tags["igq.best"] == "0"


def test_the_parent_run_names_its_images_machine_and_source(store: Path) -> None:
    images = (Input("search", "digits", "0123", 96), Input("final", "digits", "4567", 48))
    tracker = MlflowTracker(sqlite_uri(store))
    for _ in range(2):
        tracker.start(replace(STUDY, inputs=images, system={"host": "one", "commit": "0abc"}))
        finish(tracker)
    parent = parent_run(store)
    inputs = parent.inputs.dataset_inputs
    assert {i.tags[0].value: (i.dataset.name, i.dataset.digest) for i in inputs} == {
        "search": ("digits", "0123"),
        "final": ("digits", "4567"),
    }
    assert parent.data.tags["igq.system.host"] == "one"
    assert parent.data.tags["mlflow.source.git.commit"] == "0abc"


def test_the_description_links_to_the_artifacts_of_its_run(store: Path) -> None:
    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(STUDY)
    tracker.finish({}, {"mlflow.note.content": "[figure](artifact:search.png)"}, {}, [])
    run = parent_run(store)
    link = f"[figure](get-artifact?run_uuid={run.info.run_id}&path=search.png)"
    assert run.data.tags["mlflow.note.content"] == link


def test_the_least_kl_within_the_budget_is_a_history_of_the_study(store: Path) -> None:
    def with_kl(number: int, kl: float, bops: int = 800) -> Trial:
        one = replace(proposal(number), costs={Unit.BOPS: bops})
        return Trial(one, State.COMPLETE, Observation((kl,)), 1.0, None, (1,))

    record(store, with_kl(0, 0.5), with_kl(1, 0.7), pruned(2), with_kl(3, 0.1, bops=901))
    record(store, with_kl(0, 0.5), with_kl(4, 0.6), with_kl(5, 0.4))
    client, run = MlflowClient(sqlite_uri(store)), parent_run(store)
    history = client.get_metric_history(run.info.run_id, "best_kl")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (5, 0.4)]


def test_a_complete_trial_can_be_compared(store: Path) -> None:
    [run] = record(store, complete(7))
    assert run.info.run_name == "0007 sampler KL 2.5"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 2500
    means = {"groups_by_kind.qkv": "8", "groups_by_kind.fc1": "2", "groups_by_depth.1_first": "5"}
    assert run.data.params == {"origin": "sampler", **means}
    assert artifact(run, "allocation.json") == plain(ALLOCATION)
    expected = {"kl": 2.5, "running_kl": 2.5, "bops": 800.0, "images": 4.0, "seconds": 2.5}
    assert run.data.metrics == expected


def artifact(run: Run, name: str) -> Any:
    folder = Path(unquote(urlsplit(run.info.artifact_uri).path))
    return json.loads((folder / name).read_text())


def test_single_layers_are_parameters_where_that_is_asked_for(store: Path) -> None:
    tracker = MlflowTracker(sqlite_uri(store), layers=True)
    tracker.start(STUDY)
    tracker.record(complete(0))
    finish(tracker)
    [run] = children(store)
    assert run.data.params["layer.blocks.0.attn.qkv"] == "8"


def test_a_trial_says_why_it_ended_early_and_where_it_ran(store: Path) -> None:
    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(replace(STUDY, limits={Unit.BOPS: 700}))
    for trial in (pruned(0), over_budget(1), replace(failed(2), node="worker-3")):
        tracker.record(trial)
    finish(tracker)
    runs = children(store)
    assert [run.data.tags["igq.reason"] for run in runs] == [
        "pruned after 3 images: no better than the best by then",
        "over the limit: 800 BOPs, where 700 BOPs are allowed",
        "CUDA\nout of memory",
    ]
    assert [run.info.run_name for run in runs] == [
        "0000 sampler pruned",
        "0001 sampler over budget",
        "0002 sampler failed",
    ]
    assert runs[2].data.tags["igq.node"] == "worker-3"


# A store that was moved with its folder


def test_a_copied_store_keeps_its_artifacts_beside_it_and_the_original_as_it_was(
    store: Path, tmp_path: Path
) -> None:
    record(store, complete(0))
    copy = tmp_path / "copied 100%"
    shutil.copytree(store, copy)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    tracker = MlflowTracker(sqlite_uri(copy))
    tracker.start(replace(STUDY, name="copied"))
    tracker.record(complete(1))
    finish(tracker)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    for run in (parent_run(copy), *children(copy)):
        assert run.info.artifact_uri.startswith(copy.resolve().as_uri())
        assert artifact(run, "allocation.json") == plain(ALLOCATION)


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(
    store: Path, tmp_path: Path
) -> None:
    tracker = MlflowTracker(sqlite_uri(store), artifacts=tmp_path / "far")
    tracker.start(STUDY)
    finish(tracker)
    record(store, complete(0))
    assert parent_run(store).info.artifact_uri.startswith((tmp_path / "far").as_uri())


def test_a_trial_says_how_large_its_model_is_where_that_is_searched(store: Path) -> None:
    sized = replace(proposal(0), costs={Unit.BOPS: 800, Unit.BYTES: 2_900_000})
    [run] = record(store, Trial(sized, State.OVER_BUDGET))
    assert run.data.metrics == {"bops": 800.0, "size_mb": 2.9}


def test_only_a_trial_that_saw_every_image_has_a_kl(store: Path) -> None:
    stopped, costly, broken = record(store, pruned(0), over_budget(1), failed(2))
    assert [r.info.status for r in (stopped, costly, broken)] == ["KILLED", "KILLED", "FAILED"]
    assert stopped.data.metrics == {"running_kl": 2.0, "bops": 800, "images": 3, "seconds": 1.5}
    assert costly.data.metrics == {"bops": 800.0}
    assert costly.info.start_time == costly.info.end_time
    assert broken.data.tags["mlflow.note.content"] == "CUDA\nout of memory"


def test_more_layers_and_reports_than_a_request_takes(store: Path) -> None:
    large = Allocation.of({f"layers.{i}.fc": 4 for i in range(120)})
    trial = Trial(
        Proposal(0, Origin.ILP, large, {Unit.BOPS: 1}),
        State.FAILED,
        Observation((1.0,) * 250),
        1.0,
        "e" * 9000,
        (1,) * 250,
    )
    tracker = MlflowTracker(sqlite_uri(store), layers=True)
    tracker.start(STUDY)
    tracker.record(trial)
    finish(tracker)
    [run] = children(store)
    assert len(run.data.params) == 120 + 5  # three thirds, one kind, the origin
    client = MlflowClient(sqlite_uri(store))
    assert len(client.get_metric_history(run.info.run_id, "running_kl")) == 250
    assert len(run.data.tags["igq.error"]) == 5000


def test_artifacts_lie_beside_the_store_and_nothing_in_the_current_directory(
    store: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(STUDY)
    tracker.finish({}, {}, {"trials.json": [{"kl": 1.0}]}, [figure])
    names = sorted(path.name for path in (store / "artifacts").rglob("*.*"))
    assert names == ["figure.png", "study.json", "trials.json"]
    assert list(Path.cwd().iterdir()) == []


def test_artifacts_lie_where_they_are_told_to(store: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker(sqlite_uri(store), artifacts=tmp_path / "elsewhere")
    tracker.start(STUDY)
    finish(tracker)
    assert len(list((tmp_path / "elsewhere").rglob("allocation.json"))) == 1


def test_a_folder_of_artifacts_that_cannot_be_written_is_refused_before_any_work(
    store: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    tracker = MlflowTracker(sqlite_uri(store), artifacts=tmp_path / "file" / "folder")
    with pytest.raises(TrackingError, match="Not a directory"):
        tracker.start(STUDY)


def test_the_location_names_store_experiment_and_run(store: Path) -> None:
    tracker = MlflowTracker(sqlite_uri(store))
    assert tracker.location == f"{sqlite_uri(store)}, experiment igq"
    tracker.start(STUDY)
    run = parent_run(store).info.run_id
    assert tracker.location == f"{sqlite_uri(store)}, experiment igq, run {run}"


@pytest.mark.parametrize("written", ["nothing", "half", "all"])
def test_a_trial_cut_off_half_way_is_completed(store: Path, written: str) -> None:
    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(STUDY)
    tracker.interrupt()
    client, parent = MlflowClient(sqlite_uri(store)), parent_run(store).info
    tags = {"mlflow.parentRunId": parent.run_id, "igq.trial": "0"}
    run = client.create_run(parent.experiment_id, 1000, tags, "trial-0000")
    if written != "nothing":
        client.log_param(run.info.run_id, "origin", "sampler")
    if written == "all":
        client.log_metric(run.info.run_id, "running_kl", 1.5, timestamp=3500, step=2)

    [completed] = record(store, complete(0))

    assert completed.info.run_id == run.info.run_id
    assert completed.info.status == "FINISHED"
    assert (completed.info.start_time, completed.info.end_time) == (1000, 3500)
    assert on_mlflow(store).kept().curves == {0: [(2, 1.5), (4, 2.5)]}


DRIVER = """
import os, signal, sys
import pipeline.tracking.mlflow  # before the tests import mlflow: it is what keeps mlflow quiet
from tests.contracts.test_tracking import *

log_batch, calls = MlflowClient.log_batch, []

def die_at_last(client, *arguments):
    calls.append(arguments)
    if len(calls) == 10:  # the study's own two, and seven trials; the eighth has a run
        os.kill(os.getpid(), signal.SIGKILL)
    log_batch(client, *arguments)

MlflowClient.log_batch = die_at_last
tracker = MlflowTracker(sys.argv[1])
tracker.start(STUDY)
for number in range(20):
    tracker.record(complete(number))
finish(tracker)
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_missing_and_nothing_twice(tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, sqlite_uri(store)],
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == -signal.SIGKILL
    assert driver.stdout + driver.stderr == ""  # a new store is made without a word
    assert [run.info.status for run in children(store)] == ["FINISHED"] * 7 + ["RUNNING"]
    assert parent_run(store).info.status == "RUNNING"

    ended = record(store, *(complete(number) for number in range(20)))

    assert [int(run.data.tags["igq.trial"]) for run in ended] == list(range(20))
    assert {run.info.status for run in ended} == {"FINISHED"}
    assert {run.data.metrics["kl"] for run in ended} == {2.5}


def test_more_trials_than_one_page_are_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = MlflowClient.search_runs

    def in_small_pages(*arguments: Any, **options: Any) -> Any:
        return search(*arguments, **(options | {"max_results": 2}))

    monkeypatch.setattr(MlflowClient, "search_runs", in_small_pages)
    record(store, *(over_budget(number) for number in range(5)))
    record(store, *(over_budget(number) for number in range(6)))
    monkeypatch.undo()
    assert [run.data.tags["igq.trial"] for run in children(store)] == list("012345")


# Faults


def refusal(uri: str) -> str:
    with pytest.raises(TrackingError) as caught:
        MlflowTracker(uri).start(STUDY)
    assert str(caught.value).startswith(UNREACHABLE)
    advice = OF_FILES if uri.startswith("sqlite") else ADVICE
    assert str(caught.value).endswith(advice)
    return str(caught.value).removeprefix(UNREACHABLE).removesuffix(advice)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_server_that_is_not_there_is_refused_soon() -> None:
    uri, start = f"http://127.0.0.1:{free_port()}", time.monotonic()
    assert refusal(uri) == f"{uri}: Connection refused"
    assert time.monotonic() - start < 10
    assert not IMPATIENT.keys() & os.environ.keys()


@pytest.mark.parametrize(
    ("scheme", "driver"), [("postgresql+psycopg", "psycopg"), ("mysql+pymysql", "pymysql")]
)
def test_a_database_that_is_not_there_is_refused_soon(scheme: str, driver: str) -> None:
    pytest.importorskip(driver)
    uri, start = f"{scheme}://127.0.0.1:{free_port()}/mlflow", time.monotonic()
    assert "refused" in refusal(uri)
    assert time.monotonic() - start < 10


def test_a_database_that_lets_nobody_in_is_refused_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would try ten times, and wait 100 seconds between."""
    engine = create_engine(f"sqlite:///{tmp_path}/no/folder.db")  # stands for any that refuses
    monkeypatch.setattr("mlflow.store.db.utils.create_sqlalchemy_engine", lambda uri: engine)
    start = time.monotonic()
    assert "unable to open database file" in refusal("mysql://127.0.0.1/mlflow")
    assert time.monotonic() - start < 10


def test_a_database_s_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    assert "pymysql" in refusal("mysql+pymysql://127.0.0.1/mlflow")


class NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    """A server that is not MLflow's."""
    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_of_something_else_is_refused(other_server: str) -> None:
    assert "404" in refusal(other_server)


def test_a_password_is_not_shown() -> None:
    assert refusal("http://me:secret@127.0.0.1:1") == "http://127.0.0.1:1: Connection refused"


def test_a_store_in_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = sqlite_uri(tmp_path / "file" / "folder")
    assert refusal(uri) == f"{uri}: Not a directory"


def test_a_store_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    assert refusal(sqlite_uri(tmp_path)).endswith("mlflow.db: unable to open database file")


def test_a_store_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, but long enough to look like one" * 99)
    assert refusal(sqlite_uri(tmp_path)).endswith("mlflow.db: file is not a database")


def test_a_store_that_can_only_be_read_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is mounted so: whoever is root may write to any file."""
    monkeypatch.setattr("pipeline.tracking.uris.sqlite3.connect", only_to_read)
    assert refusal(sqlite_uri(store)).endswith("attempt to write a readonly database")


CONNECT = sqlite3.connect


def only_to_read(path: Path, **options: Any) -> sqlite3.Connection:
    return CONNECT(f"file:{quote(str(path))}?mode=ro", uri=True, **options)


@pytest.mark.parametrize(("name", "odd"), [("why?", "?"), ("a%41", "%41")])
def test_a_path_that_mlflow_reads_otherwise_is_refused_before_anything_is_made(
    tmp_path: Path, name: str, odd: str
) -> None:
    with pytest.raises(TrackingError, match=rf"but got `{re.escape(odd)}` in .*--tracking"):
        MlflowTracker(sqlite_uri(tmp_path / name)).start(STUDY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["100 %", "a#b", "ü & co"])
def test_a_path_with_odd_characters_is_a_store_s(
    tmp_path: Path, empty_store: Path, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    [run] = record(folder, complete(0))
    assert artifact(run, "allocation.json") == plain(ALLOCATION)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_experiment_that_was_deleted_is_refused_with_the_remedy(store: Path) -> None:
    record(store)
    client, parent = MlflowClient(sqlite_uri(store)), parent_run(store)
    client.delete_experiment(parent.info.experiment_id)
    remedy = f"mlflow experiments restore --experiment-id {parent.info.experiment_id}"
    with pytest.raises(TrackingError, match="must not be a deleted one, but igq is") as caught:
        MlflowTracker(sqlite_uri(store)).start(STUDY)
    assert remedy in str(caught.value)
    MlflowTracker(sqlite_uri(store), "another").start(STUDY)


@pytest.mark.parametrize("uri", ["foo://x", "sqlite://x", "sqlite:x.db", "http://", "://", "[]"])
def test_a_malformed_uri_is_refused(uri: str, store: Path) -> None:
    reason = refusal(uri).removeprefix(f"{uri}: ")
    assert reason
    assert "\n" not in reason
    assert list(Path.cwd().iterdir()) == []


def record_on(tracker: Tracker) -> None:
    """As a search does, which has no end here."""
    while True:
        tracker.record(complete(1))


def test_what_goes_wrong_in_the_background_surfaces(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(STUDY)
    monkeypatch.setattr(MlflowClient, "log_batch", full)
    tracker.record(complete(0))
    with pytest.raises(TrackingError, match="No space left on device"):
        record_on(tracker)
    with pytest.raises(TrackingError, match="No space left on device"):
        tracker.record(complete(1))
    with pytest.raises(TrackingError, match="No space left on device"):
        finish(tracker)
    tracker.interrupt()
    assert parent_run(store).info.status == "KILLED"

    monkeypatch.undo()
    ended = record(store, complete(0), complete(1))
    assert [run.info.status for run in ended] == ["FINISHED", "FINISHED"]


def test_what_goes_wrong_in_the_background_surfaces_when_interrupted(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MlflowTracker(sqlite_uri(store))
    tracker.start(STUDY)
    monkeypatch.setattr(MlflowClient, "create_run", lambda *_: 1 / 0)
    tracker.record(complete(0))
    with pytest.raises(TrackingError, match="division by zero"):
        tracker.interrupt()
    assert parent_run(store).info.status == "KILLED"


# The web interface


def test_a_taken_port_is_refused(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        rule = f"`port` must be free on 127.0.0.1, but got {port}: .*Address already in use"
        with pytest.raises(TrackingError, match=rule):
            serve(sqlite_uri(store), "127.0.0.1", port)


SERVE = "import sys; from pipeline.tracking.server import *; sys.exit(serve(sys.argv[1], *HOST))"


@pytest.mark.skipif("IGQ_SLOW_TESTS" not in os.environ, reason="IGQ_SLOW_TESTS: half a minute")
def test_the_web_interface_is_a_server_for_trackers_until_it_is_interrupted(store: Path) -> None:
    record(store, complete(0))
    run, port = parent_run(store).info, free_port()
    code = SERVE.replace("HOST", f"('127.0.0.1', {port})")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, sqlite_uri(store)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as interface:
        wait_for(port)
        uri = f"http://127.0.0.1:{port}"
        client = MlflowClient(uri)
        kept = [file.path for file in client.list_artifacts(run.run_id)]
        assert kept == ["allocation.json", "study.json"]
        tracker = MlflowTracker(uri)
        tracker.start(STUDY)
        link = f"{uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
        assert tracker.location == link
        tracker.record(complete(1))
        finish(tracker)
        interface.send_signal(signal.SIGINT)
        assert interface.wait(30) == 0
    assert len(children(store)) == 2
    assert list(Path.cwd().iterdir()) == []
    socket.create_server(("127.0.0.1", port)).close()  # nothing was left behind


@pytest.mark.parametrize("code", [0, 3])
def test_the_web_interface_is_mlflows_server_and_its_exit_code_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit {code}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    port = free_port()
    assert serve("sqlite:////a/mlflow.db", "127.0.0.1", port) == code
    assert (tmp_path / "arguments").read_text() == (
        "-m mlflow server --backend-store-uri sqlite:////a/mlflow.db "
        f"--host 127.0.0.1 --port {port} --workers 1\n"
    )


def wait_for(port: int) -> None:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)


TOGETHER = """
import sys, time
from pipeline.tracking import StudyRun
from pipeline.tracking.mlflow import MlflowTracker
tracker = MlflowTracker(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
tracker.start(StudyRun("study", sys.argv[2], {}, 1))
tracker.finish({}, {}, {}, [])
"""


@pytest.mark.slow
def test_searches_that_begin_together_in_a_fresh_store_all_find_it(tmp_path: Path) -> None:
    uri = sqlite_uri(tmp_path)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, uri, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    ended = []
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [(process.communicate(timeout=250)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "igq"]
    assert len(client.search_runs([experiment.experiment_id])) == 3
