"""The budget of each proposal of a study: one for all, or a spread for a front."""

from dataclasses import dataclass

from igq import Limits
from igq.costs import Number

GOLDEN = 0.6180339887498949
"""The fractional parts of its multiples fill an interval evenly, however many there are."""


@dataclass(frozen=True)
class BudgetSchedule:
    """Budgets between `low` and `high`, in the unit of the study's budget.

    >>> every = BudgetSchedule(100, 200)
    >>> BudgetSchedule(100, 100).of(7), every.of(0), every.of(1), every.single
    (100, 200, 139, False)
    """

    low: Number
    high: Number

    @classmethod
    def around(cls, limits: Limits) -> "BudgetSchedule":
        """Return a spread from the cheapest cost to as far above the budget as it lies below."""
        table, budget = limits.table, limits.budget
        return cls(table.minimum, min(2 * budget - table.minimum, table.maximum))

    @property
    def single(self) -> bool:
        """Whether all proposals have the same budget."""
        return self.low == self.high

    def of(self, number: int) -> Number:
        """Return the budget of a proposal by its number; any run of numbers is spread evenly."""
        return self.high - int((number * GOLDEN) % 1 * (self.high - self.low))
