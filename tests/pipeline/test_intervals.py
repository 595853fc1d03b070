"""Intervals hold what they promise."""

import numpy as np
import pytest
from scipy import stats

from pipeline.intervals import Interval, interval


def test_it_is_student_s() -> None:
    values = [0.3, -0.1, 0.7, 0.2]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    known = interval(values)
    assert (known.mean, known.low, known.high) == pytest.approx((np.mean(values), low, high))


def test_it_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(0)
    known = [interval(list(generator.normal(0.5, 2.0, 5))) for _ in range(2000)]
    assert 0.93 < np.mean([k.low <= 0.5 <= k.high for k in known]) < 0.97


def test_equal_values_are_known_exactly() -> None:
    assert interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5)


def test_answers_count_as_0_and_1() -> None:
    assert interval([True, False]).mean == 0.5


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [(-1.0, 1.0, True), (0.0, 1.0, True), (-1.0, 0.0, True), (0.1, 1.0, False)],
)
def test_zero_inside_says_nothing_is_shown(low: float, high: float, holds: bool) -> None:
    assert Interval(0.5, low, high).holds_zero == holds
