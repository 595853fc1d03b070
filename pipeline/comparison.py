"""Allocations measured beside each other on images that no choice was made on.

What is kept of each contender is its KL and its answer on every image, so that any two can be
compared in pairs later, in this study or over several that differ in their seed alone. Compute is
counted in image-forward-passes: one image through the whole model, once.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from igq import Allocation, BopsTable, Score, evaluate
from igq.evaluation import accuracy, log_probabilities
from igq.vit import accelerate, assemble, set_quantizers, set_weights
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from pipeline.intervals import Interval, interval
from pipeline.objective import Task
from pipeline.study import Trial

BEST = "best"
"""The name of what the search found, beside its rivals."""


@dataclass(frozen=True)
class Contender:
    """A trial that stands for a way of finding allocations, and the compute of that way."""

    name: str
    trial: Trial
    forwards: int


@dataclass(frozen=True)
class Measured:
    """A contender on the validation images, image by image."""

    name: str
    number: int
    """The trial it is of."""
    bops: int
    overhead: float
    """The share of BOPs that grouping adds."""
    forwards: int
    """Image-forward-passes that it took to find."""
    search_kl: float
    """KL on the search images, which the choice was made on."""
    kls: tuple[float, ...]
    correct: tuple[bool, ...] | None
    """Whether the label is predicted; None without labels."""
    size: int | None = None
    """Bytes of the model, where bits of weights are searched."""


@dataclass(frozen=True)
class Validation:
    """All contenders of a study on its validation images."""

    measured: tuple[Measured, ...]
    reference_top1: float | None
    """Top-1 of the full-precision model on the same images."""

    @property
    def images(self) -> int:
        """How many images all of them saw."""
        return len(self.measured[0].kls)


@dataclass(frozen=True)
class Comparison:
    """A row of the table: means with intervals, over images or over seeds.

    Differences are the best's less this one's, paired; None for the best itself.
    """

    name: str
    number: int | None
    """The trial it is of; None over several studies."""
    bops: float
    overhead: float
    forwards: float
    search_kl: float
    kl: Interval
    difference: Interval | None
    top1: Interval | None
    top1_difference: Interval | None
    size: float | None = None
    """Bytes of the model, where bits of weights are searched."""

    def json(self) -> dict[str, Any]:
        """The row as plain data: means by name, with their intervals beside them."""
        row: dict[str, Any] = {}
        for name, value in vars(self).items():
            row[name] = value.mean if isinstance(value, Interval) else value
            if isinstance(value, Interval):
                row[f"{name}_interval"] = [value.low, value.high]
        return row


def measure(
    model: nn.Module,
    task: Task,
    bops: BopsTable,
    contenders: Sequence[Contender],
    images: Images,
    progress: Callable[[float], None] = lambda share: None,
) -> Validation:
    """Measure contenders on the same images; an allocation that several share is measured once."""
    allocations = list(dict.fromkeys(c.trial.proposal.allocation for c in contenders))
    total, seen = len(images) * (len(allocations) + 1), 0

    def count(batch: int) -> None:
        nonlocal seen
        seen += batch
        progress(seen / total)

    reference = log_probabilities(model, images.values, progress=count)
    corrected = copy.deepcopy(task.model).to(next(model.parameters()).device)
    first = task.candidates.select(allocations[0])
    quantized = assemble(corrected, first, task.weights_of(allocations[0]))
    accelerate(quantized, task.execution, max(task.candidates.num_groups))

    def score(allocation: Allocation) -> Score:
        set_quantizers(quantized, task.candidates.select(allocation))
        set_weights(quantized, task.weights_of(allocation))
        size = task.chunk_size
        return evaluate(quantized, images.values, reference, images.labels, size, progress=count)

    scores = {allocation: score(allocation) for allocation in allocations}

    def measured(contender: Contender) -> Measured:
        proposal = contender.trial.proposal
        score = scores[proposal.allocation]
        assert score.kls is not None  # there was a reference
        return Measured(
            contender.name,
            proposal.number,
            proposal.bops,
            bops.overhead(proposal.bops),
            contender.forwards,
            fmean(contender.trial.kls),
            tuple(score.kls.tolist()),
            None if score.correct is None else tuple(score.correct.tolist()),
            proposal.size,
        )

    top1 = None if images.labels is None else accuracy(reference, images.labels)
    return Validation(tuple(map(measured, contenders)), top1)


def compared(validation: Validation) -> tuple[Comparison, ...]:
    """Each contender beside the best, with intervals over the images of one study."""
    best = next(m for m in validation.measured if m.name == BEST)
    return tuple(_row(measured, best) for measured in validation.measured)


def over_seeds(validations: Sequence[Validation]) -> tuple[Comparison, ...]:
    """Each contender beside the best, with intervals over studies that differ in their seed.

    A contender that a study lacks is left out.
    """
    rows = [{row.name: row for row in compared(validation)} for validation in validations]
    shared = [name for name in rows[0] if all(name in study for study in rows)]
    return tuple(_mean_row([study[name] for study in rows]) for name in shared)


def save_validation(path: Path, validation: Validation) -> None:
    """Write what every contender reached on every image."""
    write_json(path, asdict(validation))


def load_validation(path: Path) -> Validation:
    """Read it back.

    Raises:
        StudyError: the study has not come to its end, or the file is damaged.
    """
    try:
        content: Mapping[str, Any] = read_json(path)
        measured = [
            Measured(
                **row
                | {"kls": tuple(row["kls"]), "correct": row["correct"] and tuple(row["correct"])}
            )
            for row in content["measured"]
        ]
        return Validation(tuple(measured), content["reference_top1"])
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{path} must hold a study's validation, but: {error!r}") from error


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
        float(this.bops),
        this.overhead,
        float(this.forwards),
        this.search_kl,
        kl=interval(this.kls),
        difference=interval([b - t for b, t in pairs]) if apart else None,
        top1=top1,
        top1_difference=top1_difference if apart else None,
        size=None if this.size is None else float(this.size),
    )


def _mean_row(rows: Sequence[Comparison]) -> Comparison:
    sizes = [row.size for row in rows if row.size is not None]
    return Comparison(
        rows[0].name,
        None,
        fmean(row.bops for row in rows),
        fmean(row.overhead for row in rows),
        fmean(row.forwards for row in rows),
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
