"""Trials whose workers are lost run again or fail; tried without Ray."""

from dataclasses import dataclass, field
from unittest.mock import Mock

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from igq import Allocation, Observation, Unit
from pipeline.cluster.evaluator import Report
from pipeline.cluster.ray import tuning
from pipeline.cluster.ray.tuning import RETRIES, Lost, Proposals
from pipeline.study.trials import Origin, Proposal


@dataclass
class OneTrial:
    """A feed of one proposal."""

    left: int = 1
    finished: list[tuple[int, str | None]] = field(default_factory=list)

    def next(self) -> Proposal | None:
        self.left -= 1
        allocation = Allocation.of({"fc1": 2})
        return None if self.left < 0 else Proposal(5, Origin.RANDOM, allocation, {Unit.BOPS: 1})

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        return False

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        self.finished.append((number, error))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(tuning.time, "monotonic", lambda: now[0])
    return now


def lose(proposals: Proposals, times: int, lost: Lost) -> int:
    """Have Tune lose a trial again and again; return how often it was tried."""
    for tried in range(times):
        if not isinstance(proposals.suggest(str(tried)), dict):
            return tried
        proposals.lost = lost
        proposals.on_trial_complete(str(tried), error=True)
    return times


def test_a_trial_is_not_blamed_for_workers_that_do_not_start(clock: list[float]) -> None:
    feed = OneTrial()
    proposals = Proposals(feed, lambda: 1)
    for _ in range(60):  # a node that died is counted as dead within a minute
        assert lose(proposals, 1, Lost(5, "ActorDiedError: its worker was lost", False)) == 1
        assert proposals.suggest("at once") is None
        clock[0] += 1.0
    assert feed.finished == []
    proposals.suggest("last")
    proposals.on_trial_complete("last")
    assert proposals.suggest("none") == Searcher.FINISHED


def test_workers_that_never_start_end_a_trial_in_time(clock: list[float]) -> None:
    feed = OneTrial()
    proposals = Proposals(feed, lambda: 1)
    lost = Lost(5, "ActorDiedError: its worker was lost", False)
    while not feed.finished and clock[0] < 2000:
        lose(proposals, 1, lost)
        clock[0] += 1.0
    assert feed.finished == [(5, "ActorDiedError: its worker was lost")]
    assert clock[0] - 1000 == pytest.approx(tuning.START_SECONDS, abs=5)


def test_a_worker_that_raises_while_it_starts_is_tried_a_few_times(clock: list[float]) -> None:
    feed = OneTrial()
    lost = Lost(5, "ClusterError: another version", False, raised=True)
    assert lose(Proposals(feed, lambda: 1), 9, lost) == 1 + RETRIES
    assert feed.finished == [(5, "ClusterError: another version")]


def test_a_trial_that_had_begun_has_had_its_tries(clock: list[float]) -> None:
    feed = OneTrial()
    assert lose(Proposals(feed, lambda: 1), 9, Lost(5, "ActorDiedError: killed", True)) == 1
    assert feed.finished == [(5, "ActorDiedError: killed")]


@dataclass
class Stopping(OneTrial):
    """A feed that stops its trial at a chunk."""

    at: int = 2
    heard: list[int] = field(default_factory=list)

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        self.heard.append(chunk)
        return chunk == self.at


@pytest.mark.parametrize(("at", "heard"), [(2, 3), (9, 4)], ids=["stopped", "seen to its end"])
def test_a_trial_ends_at_the_chunk_that_stops_it_within_a_message(at: int, heard: int) -> None:
    feed = Stopping(at=at)
    seen = Observation((1.0,))
    reports = tuple(Report(chunk, seen, float(chunk), chunk == 3) for chunk in range(4))
    answer = tuning._Reports(Proposals(feed, lambda: 1)).on_trial_result(
        None, Mock(spec=Trial, config={"number": 5}), {"reports": reports}
    )
    assert answer == TrialScheduler.STOP
    assert feed.heard == list(range(heard))
    assert feed.finished == [(5, None)]


def test_a_trial_goes_on_after_a_message_that_does_not_end_it() -> None:
    feed = Stopping()
    answer = tuning._Reports(Proposals(feed, lambda: 1)).on_trial_result(
        None,
        Mock(spec=Trial, config={"number": 5}),
        {"reports": (Report(0, Observation((1.0,)), 0.5, False),)},
    )
    assert answer == TrialScheduler.CONTINUE
    assert feed.finished == []
