"""Forms take turns; medians, quartiles and ratios are those of the rounds."""

import numpy as np

from pipeline.evaluation.latency import WARM_UP, Form, in_turns, latency


def test_forms_take_turns_and_the_first_rounds_are_not_counted() -> None:
    called: list[str] = []
    forms = [Form(n, lambda images, n=n: called.append(n), None, 0.0) for n in "ab"]  # type: ignore[misc]
    shares: list[float] = []
    times = in_turns(forms, np.zeros((1, 1)), 3, shares.append)
    assert called == ["a", "b"] * (WARM_UP + 3)
    assert [len(taken) for taken in times] == [3, 3]
    assert (len(shares), shares[-1]) == (WARM_UP + 3, 1.0)


def test_a_ratio_is_the_median_of_ratios_of_the_same_round() -> None:
    row = latency(
        Form("fast", lambda images: None, 3.0, 0.5),
        8,
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [2.0, 8.0, 9.0, 8.0, 40.0],
    )
    assert (row.milliseconds, row.low, row.high) == (3, 2, 4)
    assert row.speed == 3.0  # of 2, 4, 3, 2, 8; of medians it would be 8/3
    assert (row.name, row.batch, row.megabytes, row.load_seconds) == ("fast", 8, 3.0, 0.5)
