"""Trials in batches, and trials whose workers are lost; tried without Ray."""

from dataclasses import dataclass, field
from unittest.mock import Mock

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from igq import Allocation, Observation, Unit
from pipeline.cluster.batches import Pace
from pipeline.cluster.evaluator import Report
from pipeline.cluster.ray import tuning
from pipeline.cluster.ray.tuning import RETRIES, Lost, Proposals
from pipeline.study.trials import Origin, Proposal

DIED = Lost("ActorDiedError: its worker was lost")
CHUNKS = 4


class Whole(Pace):
    """A pace at which a worker is given all at once."""

    def after(self, seconds: float) -> Pace:
        return self

    def batch(self, left: int, workers: int) -> int:
        return max(1, left)


@dataclass
class Feed:
    """A feed of a few proposals, which stops some of them at a chunk."""

    wanted: int = 1
    stop_at: dict[int, int] = field(default_factory=dict)
    given: int = 0
    heard: list[tuple[int, int]] = field(default_factory=list)
    finished: list[tuple[int, str | None]] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.wanted - self.given

    def next(self) -> Proposal | None:
        if not self.left:
            return None
        self.given += 1
        return Proposal(self.given - 1, Origin.RANDOM, Allocation.of({"fc1": 2}), {Unit.BOPS: 1})

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        self.heard.append((number, chunk))
        return self.stop_at.get(number) == chunk

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        self.finished.append((number, error))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(tuning.time, "monotonic", lambda: now[0])
    return now


def reports(number: int, each: float = 0.01, chunks: int = CHUNKS) -> tuple[Report, ...]:
    seen = Observation((1.0,))
    return tuple(Report(number, i, seen, each, i == CHUNKS - 1) for i in range(chunks))


def raised(number: int) -> Report:
    return Report(number, 0, Observation(), 0.0, True, "MemoryError: no room")


def ask(proposals: Proposals, trial_id: str) -> list[int]:
    """Return the numbers of the batch that Tune gets; none where it gets none."""
    config = proposals.suggest(trial_id)
    return [p.number for p in config["batch"].proposals] if isinstance(config, dict) else []


def lose(proposals: Proposals, trial_id: str, lost: Lost = DIED, begun: bool = True) -> None:
    """Have Tune lose a batch."""
    if begun:
        proposals.began(trial_id)
    proposals.lost = lost
    proposals.on_trial_complete(trial_id, error=True)


def tries(proposals: Proposals, lost: Lost, begun: bool) -> int:
    """Have Tune lose the only trial until it is not tried again; return how often it was tried."""
    tried = 0
    while ask(proposals, str(tried)):
        lose(proposals, str(tried), lost, begun)
        tried += 1
    return tried


def test_a_trial_is_not_blamed_for_workers_that_do_not_start(clock: list[float]) -> None:
    feed = Feed()
    proposals = Proposals(feed, lambda: 1)
    for _ in range(60):  # a node that died is counted as dead within a minute
        assert ask(proposals, "one") == [0]
        lose(proposals, "one", begun=False)
        assert proposals.suggest("at once") is None
        clock[0] += 1.0
    assert feed.finished == []
    assert ask(proposals, "last") == [0]
    proposals.on_trial_complete("last")
    assert proposals.suggest("none") == Searcher.FINISHED


def test_workers_that_never_start_end_a_trial_in_time(clock: list[float]) -> None:
    feed = Feed()
    proposals = Proposals(feed, lambda: 1)
    while not feed.finished and clock[0] < 2000:
        tries(proposals, DIED, begun=False)
        clock[0] += 1.0
    assert feed.finished == [(0, DIED.reason)]
    assert clock[0] - 1000 == pytest.approx(tuning.START_SECONDS, abs=5)


def test_a_worker_that_raises_while_it_starts_is_tried_a_few_times(clock: list[float]) -> None:
    feed = Feed()
    lost = Lost("ClusterError: another version", raised=True)
    assert tries(Proposals(feed, lambda: 1), lost, begun=False) == 1 + RETRIES
    assert feed.finished == [(0, "ClusterError: another version")]


def test_a_trial_that_takes_every_worker_with_it_is_tried_a_few_times(clock: list[float]) -> None:
    feed = Feed()
    assert tries(Proposals(feed, lambda: 1), DIED, begun=True) == 1 + RETRIES
    assert feed.finished == [(0, DIED.reason)]


def test_batches_grow_when_trials_are_short_and_shrink_at_the_end() -> None:
    feed = Feed(wanted=60)
    proposals = Proposals(feed, lambda: 2)
    sizes = []
    while batch := ask(proposals, "next"):
        sizes.append(len(batch))
        proposals.take("next", [report for number in batch for report in reports(number)])
        proposals.on_trial_complete("next")
    assert sizes == [*[1] * 16, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 4, 2, 1, 1, 1]
    assert sorted(feed.finished) == [(number, None) for number in range(60)]
    assert proposals.suggest("none") == Searcher.FINISHED


def test_long_trials_stay_alone() -> None:
    proposals = Proposals(Feed(wanted=50), lambda: 1)
    for number in range(9):
        assert ask(proposals, "next") == [number]
        proposals.take("next", reports(number, each=0.25))
        proposals.on_trial_complete("next")


def test_trials_that_raise_at_once_do_not_pass_for_short_ones() -> None:
    proposals = Proposals(Feed(wanted=50), lambda: 1)
    for number in range(9):
        assert ask(proposals, "next") == [number]
        proposals.take("next", [raised(number)])
        proposals.on_trial_complete("next")


def test_an_error_is_the_end_of_its_trial_alone_in_a_batch() -> None:
    feed = Feed(wanted=3)
    proposals = Proposals(feed, lambda: 1, Whole())
    assert ask(proposals, "batch") == [0, 1, 2]
    assert proposals.take("batch", [*reports(0), raised(1), *reports(2)])
    assert feed.finished == [(0, None), (1, "MemoryError: no room"), (2, None)]


def test_nothing_is_heard_of_a_trial_after_its_end() -> None:
    feed = Feed(wanted=2, stop_at={0: 1})
    proposals = Proposals(feed, lambda: 1, Whole())
    assert ask(proposals, "batch") == [0, 1]
    assert not proposals.take("batch", reports(0, chunks=3))
    assert proposals.take("batch", [*reports(0)[3:], *reports(1)])
    assert feed.heard == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert feed.finished == [(0, None), (1, None)]


def test_a_lost_batch_blames_nobody_and_each_is_tried_alone() -> None:
    feed = Feed(wanted=5)
    proposals = Proposals(feed, lambda: 1, Whole())
    assert ask(proposals, "batch") == [0, 1, 2, 3, 4]
    assert not proposals.take("batch", [*reports(0), *reports(1, chunks=2)])
    lose(proposals, "batch")
    poison, sent = 2, list[int]()
    while batch := ask(proposals, "alone"):
        (number,) = batch
        sent.append(number)
        if number == poison:
            lose(proposals, "alone")
        else:
            assert proposals.take("alone", reports(number))
            proposals.on_trial_complete("alone")
    assert sorted(sent) == [1, *[poison] * (1 + RETRIES), 3, 4]
    assert sorted(feed.finished) == [
        (number, DIED.reason if number == poison else None) for number in range(5)
    ]


def test_a_batch_that_no_worker_began_is_tried_again_for_nothing(clock: list[float]) -> None:
    feed = Feed(wanted=2)
    proposals = Proposals(feed, lambda: 1, Whole())
    assert ask(proposals, "batch") == [0, 1]
    lose(proposals, "batch", begun=False)
    assert proposals.suggest("at once") is None
    clock[0] += tuning.PAUSE
    for number in (0, 1):
        assert len(ask(proposals, f"alone {number}")) == 1
        proposals.on_trial_complete(f"alone {number}")
    assert feed.finished == []


def test_the_last_of_a_batch_has_had_the_worker_to_itself() -> None:
    feed = Feed(wanted=2)
    proposals = Proposals(feed, lambda: 1, Whole())
    assert ask(proposals, "batch") == [0, 1]
    proposals.take("batch", reports(0))
    lose(proposals, "batch")
    assert tries(proposals, DIED, begun=True) == RETRIES
    assert feed.finished[-1] == (1, DIED.reason)


def scheduled(feed: Feed, *message: Report) -> str:
    """Return what Tune is told to do after a message of the first trial."""
    proposals = Proposals(feed, lambda: 1)
    assert ask(proposals, "one") == [0]
    trial = Mock(spec=Trial, trial_id="one")
    return tuning._Reports(proposals).on_trial_result(None, trial, {"reports": message})


@pytest.mark.parametrize(("at", "heard"), [(2, 3), (9, 4)], ids=["stopped", "seen to its end"])
def test_a_trial_ends_at_the_chunk_that_stops_it_within_a_message(at: int, heard: int) -> None:
    feed = Feed(stop_at={0: at})
    assert scheduled(feed, *reports(0)) == TrialScheduler.STOP
    assert feed.heard == [(0, chunk) for chunk in range(heard)]
    assert feed.finished == [(0, None)]


def test_a_trial_goes_on_after_a_message_that_does_not_end_it() -> None:
    feed = Feed()
    assert scheduled(feed, *reports(0, chunks=1)) == TrialScheduler.CONTINUE
    assert feed.finished == []
