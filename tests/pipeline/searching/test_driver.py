"""The driver: each trial ends once, in the right state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from igq import Allocation, Limits, Observation
from pipeline.proposals import Proposals
from pipeline.searching.driver import Driver, Plan
from pipeline.study.best import best
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin, Proposal, Snapshot, State, Trial
from pipeline.tracking import InMemoryTracker, StudyRun

CHUNK = Observation((1.0, 3.0))
CHUNKS = 2
IMAGES = CHUNKS * len(CHUNK)
Baselines = list[tuple[Origin, Allocation]]


class Watched(Proposals):
    """Notes what is told, and asks for a stop at the chunks given."""

    def __init__(self, *arguments: Any, stop_at: tuple[int, ...] = (), **more: Any) -> None:
        self.told: list[Trial] = []
        self.heard: list[tuple[int, int, float]] = []
        self.stop_at = stop_at
        super().__init__(*arguments, **more)

    def should_stop(self, number: int, chunk: int, kl: float) -> bool:
        super().should_stop(number, chunk, kl)
        self.heard.append((number, chunk, kl))
        return chunk in self.stop_at

    def tell(self, ended: Trial) -> None:
        super().tell(ended)
        self.told.append(ended)


@pytest.fixture
def tracker() -> InMemoryTracker:
    tracker = InMemoryTracker()
    tracker.start(StudyRun("study", "key", {}, 0))
    return tracker


@pytest.fixture
def watched(tmp_path: Path, limits: Limits) -> Callable[..., Watched]:
    def make(**more: Any) -> Watched:
        more = {"baselines": [], "sampler": Sampler.RANDOM} | more
        schedule = BudgetSchedule(limits.budget, limits.budget)
        return Watched(tmp_path / "journal.log", "study", limits, schedule, **more)

    return make


@pytest.fixture
def drive(tracker: InMemoryTracker, limits: Limits) -> Callable[..., Driver]:
    def make(proposals: Proposals, trials: int = 3, **more: Any) -> Driver:
        return Driver(proposals, tracker, Plan(trials, IMAGES, limits.budget), **more)

    return make


def evaluate(driver: Driver, proposal: Proposal) -> None:
    for chunk in range(CHUNKS):
        if driver.report(proposal.number, chunk, CHUNK):
            break
    driver.finish(proposal.number, seconds=0.5)


def following(driver: Driver) -> Proposal:
    proposal = driver.next()
    assert proposal is not None
    return proposal


def states(driver: Driver) -> list[State]:
    return [trial.state for trial in driver.snapshot.ended]


class TestEveryProposalEndsOnce:
    def test_those_that_saw_every_image_are_complete(
        self,
        watched: Callable[..., Watched],
        drive: Callable[..., Driver],
        tracker: InMemoryTracker,
    ) -> None:
        proposals = watched()
        driver = drive(proposals, trials=3)
        while (proposal := driver.next()) is not None:
            evaluate(driver, proposal)
        assert states(driver) == [State.COMPLETE] * 3
        assert tuple(proposals.told) == driver.snapshot.ended
        assert tuple(tracker.trials.values()) == driver.snapshot.ended
        assert [trial.number for trial in proposals.told] == [0, 1, 2]

    def test_a_complete_trial_has_the_kls_in_the_order_of_the_images(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        driver = drive(watched())
        number = following(driver).number
        driver.report(number, 0, Observation((1.0, 2.0), (0.1, 0.2)))
        driver.report(number, 1, Observation((3.0, 4.0), (0.3, 0.4)))
        driver.finish(number, seconds=0.5)
        (trial,) = driver.snapshot.ended
        assert trial.observation == Observation((1.0, 2.0, 3.0, 4.0), (0.1, 0.2, 0.3, 0.4))
        assert (trial.chunks, trial.seconds) == ((2, 2), 0.5)

    def test_running_ones_count_so_that_no_more_are_given_out_than_wanted(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        driver = drive(watched(), trials=2)
        first, second = following(driver), following(driver)
        assert driver.next() is None
        assert driver.snapshot.running == 2
        evaluate(driver, second)
        evaluate(driver, first)
        assert driver.next() is None
        assert driver.snapshot.running == 0

    def test_those_left_to_begin_are_counted_as_if_all_that_run_saw_every_image(
        self,
        watched: Callable[..., Watched],
        tracker: InMemoryTracker,
        limits: Limits,
    ) -> None:
        passes = 3 * IMAGES - 1
        driver = Driver(watched(), tracker, Plan(9, IMAGES, limits.budget, passes))
        assert driver.left == 3
        number = following(driver).number
        assert driver.left == 2
        driver.report(number, 0, CHUNK)
        driver.finish(number, seconds=0.5)  # half of it: there are passes for three more
        assert driver.left == 3
        few = Driver(watched(), tracker, Plan(3, IMAGES, limits.budget))
        assert few.left == 2
        following(few)
        assert few.left == 1

    def test_every_change_is_heard(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        heard: list[Snapshot] = []

        class Heard(SilentDisplay):
            def trials(self, snapshot: Snapshot) -> None:
                heard.append(snapshot)

        driver = drive(watched(), trials=1, display=Heard())
        evaluate(driver, following(driver))
        assert [(len(s.ended), s.running) for s in heard] == [(0, 0), (0, 1), (1, 0)]


class TestStopping:
    def test_a_trial_that_the_pruner_stops_is_pruned_and_keeps_what_it_saw(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        driver = drive(watched(stop_at=(0,)))
        evaluate(driver, following(driver))
        (trial,) = driver.snapshot.ended
        assert (trial.state, trial.observation) == (State.PRUNED, CHUNK)

    @pytest.mark.parametrize("origin", [Origin.UNIFORM, Origin.ILP, Origin.RANDOM])
    def test_a_baseline_sees_every_image_whatever_the_pruner_says(
        self,
        watched: Callable[..., Watched],
        drive: Callable[..., Driver],
        limits: Limits,
        origin: Origin,
    ) -> None:
        baselines = [(origin, Allocation.of(dict.fromkeys(limits.names, 1)))]
        driver = drive(watched(baselines=baselines, stop_at=(0, 1)))
        evaluate(driver, following(driver))
        assert states(driver) == [State.COMPLETE]

    def test_the_pruner_hears_the_mean_of_each_chunk(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        proposals = watched()
        driver = drive(proposals)
        number = following(driver).number
        driver.report(number, 0, Observation((1.0, 3.0)))
        driver.report(number, 1, Observation((5.0,)))
        assert proposals.heard == [(number, 0, 2.0), (number, 1, 5.0)]


class TestTrialsThatWentWrong:
    def test_a_chunk_reported_again_by_a_new_worker_counts_once(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        proposals = watched()
        driver = drive(proposals)
        proposal = following(driver)
        driver.report(proposal.number, 0, CHUNK)
        evaluate(driver, proposal)
        (trial,) = driver.snapshot.ended
        assert (trial.state, trial.observation) == (State.COMPLETE, CHUNK + CHUNK)
        assert [chunk for _, chunk, _ in proposals.heard] == [0, 1]

    def test_an_error_makes_it_failed_and_stays_with_it(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        proposals = watched()
        driver = drive(proposals)
        number = following(driver).number
        driver.report(number, 0, CHUNK)
        driver.finish(number, 0.5, "FloatingPointError: the KL of an image is not finite")
        (trial,) = driver.snapshot.ended
        assert trial.state is State.FAILED
        assert trial.error == "FloatingPointError: the KL of an image is not finite"
        assert proposals.ended() == (trial,)

    def test_an_error_after_the_last_chunk_is_still_an_error(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver]
    ) -> None:
        driver = drive(watched())
        number = following(driver).number
        for chunk in range(CHUNKS):
            driver.report(number, chunk, CHUNK)
        driver.finish(number, 0.5, "its worker was lost")
        assert states(driver) == [State.FAILED]


class TestOverBudget:
    def test_is_recorded_and_counted_but_never_given_out(
        self,
        watched: Callable[..., Watched],
        drive: Callable[..., Driver],
        tracker: InMemoryTracker,
        limits: Limits,
    ) -> None:
        dear = Allocation.of(dict.fromkeys(limits.names, 8))
        cheap = Allocation.of(dict.fromkeys(limits.names, 1))
        baselines = [(Origin.UNIFORM, dear), (Origin.ILP, dear), (Origin.RANDOM, cheap)]
        proposals = watched(baselines=baselines)
        driver = drive(proposals, trials=3)
        given = following(driver)
        assert (given.allocation, given.number) == (cheap, 2)
        evaluate(driver, given)
        assert driver.next() is None
        assert states(driver) == [State.OVER_BUDGET] * 2 + [State.COMPLETE]
        assert driver.snapshot.ended == proposals.ended() == tuple(tracker.trials.values())
        found = best(driver.snapshot.ended, limits.budget)
        assert found is not None
        assert found.number == 2

    def test_a_study_may_consist_of_nothing_else(
        self, watched: Callable[..., Watched], drive: Callable[..., Driver], limits: Limits
    ) -> None:
        dear = Allocation.of(dict.fromkeys(limits.names, 8))
        driver = drive(watched(baselines=[(Origin.UNIFORM, dear)]), trials=1)
        assert driver.next() is None
        assert driver.snapshot.count(State.OVER_BUDGET) == 1
        assert best(driver.snapshot.ended, limits.budget) is None


class TestResuming:
    def test_what_ended_before_is_there_and_reaches_the_tracker(
        self,
        watched: Callable[..., Watched],
        drive: Callable[..., Driver],
        tracker: InMemoryTracker,
    ) -> None:
        first = drive(watched(), trials=4)
        evaluate(first, following(first))
        evaluate(first, following(first))
        tracker.trials.clear()  # a driver that died before the tracker heard

        again = drive(watched(), trials=4)
        assert again.snapshot.ended == first.snapshot.ended
        assert tuple(tracker.trials.values()) == first.snapshot.ended
        while (proposal := again.next()) is not None:
            evaluate(again, proposal)
        assert [trial.number for trial in again.snapshot.ended] == [0, 1, 2, 3]
