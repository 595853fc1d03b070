"""The budgets of the proposals of a study."""

import numpy as np

from igq import Limits
from pipeline.study.budgets import BudgetSchedule


def test_they_spread_evenly_over_the_range() -> None:
    drawn = [BudgetSchedule(1000, 2000).of(number) for number in range(100)]
    counts = np.histogram(drawn, bins=10, range=(1000, 2000))[0]
    assert counts.min() >= 8
    assert counts.max() <= 12


def test_one_budget_is_that_of_every_proposal() -> None:
    schedule = BudgetSchedule(1000, 1000)
    assert schedule.single
    assert {schedule.of(number) for number in range(20)} == {1000}


def test_a_range_lies_around_its_budget(limits: Limits) -> None:
    table = limits.table
    around = BudgetSchedule.around(limits.with_budget(table.minimum + 1000))
    assert around == BudgetSchedule(table.minimum, table.minimum + 2000)
    dearest = BudgetSchedule.around(limits.with_budget(table.maximum))
    assert dearest == BudgetSchedule(table.minimum, table.maximum)
