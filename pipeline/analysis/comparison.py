"""Contenders compared in pairs on the same images, in one study or over several seeds.

>>> from igq import Unit
>>> from pipeline.evaluation.validation import Measured, Validation
>>> common = {"costs": {Unit.BOPS: 10}, "overhead": 0.1, "passes": 5, "search_kl": 0.5}
>>> best = Measured("best", 3, kls=(0.1, 0.2), correct=None, **common)
>>> uniform = Measured("uniform", 0, kls=(0.3, 0.4), correct=None, **common)
>>> rows = compared(Validation((best, uniform), None))
>>> round(rows[1].difference.mean, 3)
-0.2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from igq import Unit
from pipeline.evaluation.validation import BEST, Measured, Validation
from pipeline.intervals import Interval, interval

_STORED = {"cost": "bops", "passes": "forwards"}
"""The names of fields in files, where they differ."""


@dataclass(frozen=True)
class Comparison:
    """A row of the table: means with intervals, over images or over seeds.

    Differences are best minus this, paired; None for the best itself.

    >>> import pipeline
    >>> best, uniform, *_ = pipeline.open("studies/demo").comparisons
    >>> best.difference is None, abs(best.kl.mean - uniform.kl.mean) < 1
    (True, True)
    """

    name: str
    number: int | None
    """The number of its trial; None over several studies."""
    cost: float
    """In BOPs."""
    overhead: float
    passes: float
    search_kl: float
    kl: Interval
    difference: Interval | None
    top1: Interval | None
    top1_difference: Interval | None
    size: float | None = None
    """Bytes of the model, where bits of weights are searched."""

    def json(self) -> dict[str, Any]:
        """Return the row as plain data: means by name, with their intervals beside them."""
        row: dict[str, Any] = {}
        for field, value in vars(self).items():
            name = _STORED.get(field, field)
            row[name] = value.mean if isinstance(value, Interval) else value
            if isinstance(value, Interval):
                row[f"{name}_interval"] = [value.low, value.high]
        return row


def compared(validation: Validation) -> tuple[Comparison, ...]:
    """Compare each contender with the best, with intervals over the images of one study.

    >>> from igq import Unit
    >>> common = {"costs": {Unit.BOPS: 10}, "overhead": 0.1, "passes": 5, "search_kl": 0.5}
    >>> best = Measured("best", 3, kls=(0.1, 0.2), correct=None, **common)
    >>> [row.name for row in compared(Validation((best,), None))]
    ['best']
    """
    best = next(m for m in validation.measured if m.name == BEST)
    return tuple(_row(measured, best) for measured in validation.measured)


def over_seeds(validations: Sequence[Validation]) -> tuple[Comparison, ...]:
    """Compare each contender with the best, with intervals over studies of several seeds.

    A contender that a study lacks is left out.

    >>> from igq import Unit
    >>> common = {"costs": {Unit.BOPS: 10}, "overhead": 0.1, "passes": 5, "search_kl": 0.5}
    >>> best = Measured("best", 3, kls=(0.1, 0.2), correct=None, **common)
    >>> (row,) = over_seeds([Validation((best,), None)] * 2)
    >>> round(row.kl.mean, 3)
    0.15
    """
    rows = [{row.name: row for row in compared(validation)} for validation in validations]
    shared = [name for name in rows[0] if all(name in study for study in rows)]
    return tuple(_mean_row([study[name] for study in rows]) for name in shared)


def _row(this: Measured, best: Measured) -> Comparison:
    apart = this is not best
    pairs = zip(best.kls, this.kls, strict=True)
    top1 = top1_difference = None
    if this.correct is not None and best.correct is not None:
        top1 = interval(this.correct)
        answers = zip(best.correct, this.correct, strict=True)
        top1_difference = interval([float(b) - float(t) for b, t in answers])
    return Comparison(
        this.name,
        this.number,
        float(this.costs[Unit.BOPS]),
        this.overhead,
        float(this.passes),
        this.search_kl,
        kl=interval(this.kls),
        difference=interval([b - t for b, t in pairs]) if apart else None,
        top1=top1,
        top1_difference=top1_difference if apart else None,
        size=float(this.costs[Unit.BYTES]) if Unit.BYTES in this.costs else None,
    )


def _mean_row(rows: Sequence[Comparison]) -> Comparison:
    sizes = [row.size for row in rows if row.size is not None]
    return Comparison(
        rows[0].name,
        None,
        fmean(row.cost for row in rows),
        fmean(row.overhead for row in rows),
        fmean(row.passes for row in rows),
        fmean(row.search_kl for row in rows),
        kl=interval([row.kl.mean for row in rows]),
        difference=_over([row.difference for row in rows]),
        top1=_over([row.top1 for row in rows]),
        top1_difference=_over([row.top1_difference for row in rows]),
        size=fmean(sizes) if len(sizes) == len(rows) else None,
    )


def _over(intervals: Sequence[Interval | None]) -> Interval | None:
    means = [known.mean for known in intervals if known is not None]
    return interval(means) if len(means) == len(intervals) else None
