"""How many proposals a worker is given at once."""

from copy import deepcopy

import pytest

from igq import Allocation, Unit
from pipeline.cluster.batches import MOST, RECENT, Batch, Pace
from pipeline.cluster.evaluator import MESSAGE_SECONDS
from pipeline.study.trials import Origin, Proposal


def test_one_is_given_while_no_trial_has_ended() -> None:
    assert Pace().batch(left=1000, workers=1) == 1


def test_a_proposal_knows_four_fifths_of_those_before_it() -> None:
    pace, workers, sizes = Pace(), 2, list[int]()
    while pace.ended < 160:
        sizes.append(pace.batch(left=1000, workers=workers))
        assert sizes[-1] == 1 or 4 * workers * sizes[-1] <= pace.ended
        for _ in range(workers * sizes[-1]):
            pace = pace.after(0.001)
    assert sizes == [*[1] * 8, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12, 15, 16]


def test_a_worker_that_is_alone_is_given_one_at_a_time() -> None:
    assert Pace(1000, (0.001,)).batch(left=1000, workers=1) == 1


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.0, MOST), (0.01, MOST), (0.04, 12), (0.1, 4), (0.24, 2), (0.25, 1), (9.0, 1)],
)
def test_a_batch_ends_within_a_message(seconds: float, size: int) -> None:
    assert Pace(1000, (seconds,)).batch(left=1000, workers=2) == size
    assert size == 1 or size * seconds < MESSAGE_SECONDS


@pytest.mark.parametrize(
    ("workers", "seconds", "size"),
    [(5, 0.24, 2), (5, 0.5, 1), (32, 0.5, 6), (64, 0.5, 12), (64, 5.0, 1), (200, 0.5, 12)],
)
def test_many_workers_are_not_served_more_often_than_tune_can(
    workers: int, seconds: float, size: int
) -> None:
    """Of 200 workers' batches 10,000 trials hold a quarter with 12 trials in each."""
    assert Pace(10_000, (seconds,)).batch(left=10_000, workers=workers) == size


def test_the_last_trials_are_shared_by_all_workers() -> None:
    left, sizes = 40, list[int]()
    while left > 0:
        sizes.append(Pace(1000, (0.001,)).batch(left, workers=4))
        left -= sizes[-1]
    assert sizes == [10, 7, 5, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_study_that_has_all_it_may_have_asks_for_one() -> None:
    """The feed then has the last word: trials that were stopped may leave passes for more."""
    assert Pace(1000, (0.001,)).batch(left=-3, workers=2) == 1


def test_a_few_slow_trials_change_nothing_and_many_do() -> None:
    pace = Pace(ended=100)
    for _ in range(RECENT):
        pace = pace.after(0.1)
    for _ in range(RECENT // 2):
        pace = pace.after(5.0)
    assert pace.batch(left=1000, workers=2) == 4
    assert pace.after(5.0).batch(left=1000, workers=2) == 1
    assert len(pace.after(5.0).seconds) == RECENT


def test_tune_neither_copies_a_batch_nor_spells_it_out() -> None:
    allocation = Allocation.of({f"layer {number}": 8 for number in range(60)})
    batch = Batch(
        tuple(Proposal(number, Origin.SAMPLER, allocation, {Unit.BOPS: 1}) for number in (3, 4))
    )
    assert deepcopy({"batch": batch})["batch"] is batch
    assert str(batch) == "Batch(3, 4)"
