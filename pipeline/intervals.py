"""Confidence intervals of means, over images or over calibration seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds the true one with 95 % confidence.

    >>> Interval(-0.1, -0.2, 0.05).holds_zero, Interval(-0.1, -0.2, -0.05).holds_zero
    (True, False)
    """

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether the true mean may be 0: no difference is shown."""
        return self.low <= 0 <= self.high


def interval(values: Sequence[float] | Sequence[bool]) -> Interval:
    """Return the mean of independent values with Student's t interval.

    The interval of a single value is infinite.


    >>> interval([1.0, 3.0])  # 2 +- 12.7 standard errors of 1
    Interval(mean=2.0, low=-10.70620..., high=14.70620...)
    >>> interval([1.0])
    Interval(mean=1.0, low=-inf, high=inf)
    """
    x = np.asarray(values, dtype=float)
    mean = float(x.mean())
    if len(x) < 2:
        return Interval(mean, -np.inf, np.inf)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean, mean - reach, mean + reach)
