"""`igq sync`: the journal is the truth, MLflow is brought up to it, again and again alike."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cluster import InProcess
from pipeline.commands.studies.search import run
from pipeline.commands.studies.sync import sync
from pipeline.errors import StudyError
from pipeline.study.folder import Folder, exclusive
from pipeline.study.progress import Display
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker, StudyRun
from pipeline.tracking.store import connect, find_study, runs_with
from tests.pipeline.commands.studies.test_search import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("searches")]


class Forgetful(InMemoryTracker):
    """A tracker that kept nothing, as a server that was away."""


@pytest.fixture
def request_of(make_request: Callable[..., Request]) -> Request:
    return make_request()


def test_a_finished_study_is_written_as_the_search_would_have(
    request_of: Request, display: Display
) -> None:
    searched, again = InMemoryTracker(), InMemoryTracker()
    run(request_of, InProcess(), searched, display)
    done = sync(request_of.out, again)
    assert (done.trials, done.finished) == (12, True)
    assert again.trials == searched.trials
    assert again.results == searched.results
    assert isinstance(again.study, StudyRun)
    assert isinstance(searched.study, StudyRun)
    assert (again.study.key, again.study.params) == (searched.study.key, searched.study.params)


def test_an_interrupted_study_is_closed_as_such(request_of: Request, display: Display) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(request_of, Interrupted(after=4), InMemoryTracker(), display)
    tracker = InMemoryTracker()
    done = sync(request_of.out, tracker)
    assert (done.trials, done.finished, tracker.status) == (4, False, "KILLED")


def test_a_store_gets_each_trial_once_however_often(
    request_of: Request, display: Display, tmp_path: Path
) -> None:
    run(request_of, InProcess(), InMemoryTracker(), display)
    uri = f"sqlite:///{tmp_path / 'late.db'}"
    for _ in range(2):
        done = sync(request_of.out, uri)
    assert uri in done.location
    key = Folder(request_of.out).study.read_text().split('"key": "')[1][:16]
    found = find_study(uri, key)
    assert found is not None
    runs = runs_with(connect(uri), found[0], "mlflow.parentRunId", found[1])
    numbers = sorted(int(one.data.tags["igq.trial"]) for one in runs)
    assert numbers == list(range(12))
    assert "RUNNING" not in {one.info.status for one in runs}


def test_a_study_that_a_search_has_open_is_refused(request_of: Request, display: Display) -> None:
    run(request_of, InProcess(), InMemoryTracker(), display)
    with (
        exclusive(Folder(request_of.out), resume=True),
        pytest.raises(StudyError, match="another process"),
    ):
        sync(request_of.out, InMemoryTracker())
