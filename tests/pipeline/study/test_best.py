"""The one definition of best, and what a trial says of itself."""

from collections.abc import Callable
from itertools import permutations

import pytest

from pipeline.study.best import best, best_of, front, knee
from pipeline.study.trials import Origin, State, Trial

BUDGET = 100
Make = Callable[..., Trial]


def test_the_least_kl_is_best(trial: Make) -> None:
    trials = [trial(0, (2.0, 4.0)), trial(1, (1.0, 3.0)), trial(2, (0.5, 9.0))]
    assert best(trials, BUDGET) is trials[1]


@pytest.mark.parametrize("state", [s for s in State if s is not State.COMPLETE])
def test_a_trial_that_did_not_complete_is_never_best(trial: Make, state: State) -> None:
    complete = trial(0, (2.0, 2.0))
    assert best([complete, trial(1, (0.1,), state=state)], BUDGET) is complete


def test_a_stopped_trial_with_a_lower_running_mean_does_not_win(trial: Make) -> None:
    """Its easy images came first: the mean of those that it saw is no mean of all."""
    stopped = trial(0, (0.1, 0.1), state=State.PRUNED)
    whole = trial(1, (0.1, 0.1, 5.0, 5.0))
    assert stopped.kl is not None
    assert whole.kl is not None
    assert stopped.kl < whole.kl
    assert best([stopped, whole], BUDGET) is whole


def test_a_trial_over_the_budget_is_never_best(trial: Make) -> None:
    within = trial(0, (9.0,), bops=BUDGET)
    assert best([within, trial(1, (0.1,), bops=BUDGET + 1)], BUDGET) is within


def test_of_equals_the_cheaper_is_best_and_then_the_earlier(trial: Make) -> None:
    trials = [trial(0, bops=90), trial(1, bops=80), trial(2, bops=80)]
    for order in permutations(trials):
        assert best(order, BUDGET) is trials[1]


@pytest.mark.parametrize("budget", [99, 0])
def test_there_may_be_no_best(trial: Make, budget: int) -> None:
    assert best([], BUDGET) is None
    assert best([trial(0)], budget) is None


def test_the_best_of_an_origin_leaves_others_out(trial: Make) -> None:
    trials = [
        trial(0, (3.0,), origin=Origin.RANDOM),
        trial(1, (2.0,), origin=Origin.RANDOM),
        trial(2, (1.0,), origin=Origin.SAMPLER),
    ]
    assert best_of(trials, Origin.RANDOM, BUDGET) is trials[1]
    assert best_of(trials, Origin.ILP, BUDGET) is None


def test_a_trial_that_saw_no_image_has_no_kl(trial: Make) -> None:
    assert trial(0, ()).kl is None


def test_the_curve_is_the_running_mean_at_each_report(trial: Make) -> None:
    assert trial(0, (1.0, 3.0, 5.0), chunks=(2, 1)).curve == (2.0, 3.0)


class TestFront:
    def test_what_a_cheaper_one_equals_is_not_on_it(self, trial: Callable[..., Trial]) -> None:
        trials = [
            trial(0, (0.5,), bops=20),
            trial(1, (1.0,), bops=10),
            trial(2, (0.5,), bops=30),
            trial(3, (0.1,), bops=5, state=State.PRUNED),
            trial(4, (0.4,), bops=40),
        ]
        assert [t.number for t in front(trials)] == [1, 0, 4]

    def test_the_knee_is_where_the_curve_bends(self, trial: Callable[..., Trial]) -> None:
        points = [trial(i, (kl,), bops=10 * i) for i, kl in enumerate((1.0, 0.3, 0.2, 0.1))]
        assert knee(points) is points[1]

    @pytest.mark.parametrize("kls", [(1.0, 0.5), (1.0, 0.9, 0.0), (1.0, 0.5, 0.0)])
    def test_a_front_that_bends_the_other_way_has_none(
        self, trial: Callable[..., Trial], kls: tuple[float, ...]
    ) -> None:
        assert knee([trial(i, (kl,), bops=10 * i) for i, kl in enumerate(kls)]) is None
