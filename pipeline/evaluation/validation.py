"""Allocations measured on images that no choice was made on.

The KL and the answer of each contender on every image are kept, so that any two can be compared in
pairs later, in this study or over several that differ in their seed alone. Compute is counted in
passes: one image through the whole model, once.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import lcm
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igq import Allocation, Limits, Score, Unit
from igq.costs import Number
from igq.evaluation import BATCH_SIZE
from igq.progress import Progress, silent
from igq.quantized import accelerate, assemble, set_quantizers, set_weights
from pipeline.data import Block, Images
from pipeline.data.stream import MEMORY
from pipeline.errors import StudyError
from pipeline.evaluation.scoring import Contest, Scores
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Part, Workers, worth
from pipeline.study.seals import check_companions, companions, read_sealed, write_sealed
from pipeline.study.trials import Trial

HELD = 2**31
"""Bytes of images that are held to be shared among workers; more are streamed through this process
(our choice)."""
BEST = "best"
"""The name of the search's own answer, beside its rivals."""


@dataclass(frozen=True)
class Contender:
    """A trial that stands for a way of finding allocations, and the compute of that way."""

    name: str
    trial: Trial
    passes: int


@dataclass(frozen=True)
class Measured:
    """A contender on the validation images, image by image."""

    name: str
    number: int
    """The number of its trial."""
    costs: Mapping[Unit, Number]
    """Unit -> cost, the budget's unit first."""
    overhead: float
    """The share of BOPs that grouping adds."""
    passes: int
    """Image-forward-passes of the search for it."""
    search_kl: float
    """KL on the search images, which the choice was made on."""
    kls: tuple[float, ...]
    correct: tuple[bool, ...] | None
    """Whether the label is predicted; None without labels."""


@dataclass(frozen=True)
class Validation:
    """All contenders of a study on its validation images."""

    measured: tuple[Measured, ...]
    reference_top1: float | None
    """Top-1 of the full-precision model on the same images."""

    @property
    def images(self) -> int:
        """The number of images, which all contenders saw."""
        return len(self.measured[0].kls)


def measure(
    model: nn.Module,
    task: Task,
    limits: Limits,
    contenders: Sequence[Contender],
    images: Images,
    progress: Progress = silent,
    workers: Workers | None = None,
) -> Validation:
    """Measure contenders on the same images; an allocation that several share is measured once.

    `model` is the full-precision one. `workers` measure parts of the images, where they are many.
    """
    allocations = list(dict.fromkeys(c.trial.proposal.allocation for c in contenders))
    passes = len(images) * (1 + len(allocations))
    if workers is not None and worth(workers, passes, task.candidates.layers) and fits(images):
        found = _in_parts(model, task, allocations, images, progress, workers)
    else:
        blocks = images.blocks(_batch(task), MEMORY)
        found = contest(model, task, allocations).score(blocks, len(images), progress)
    scores = dict(zip(allocations, found.models, strict=True))
    measured = (_measured(c, scores[c.trial.proposal.allocation], limits) for c in contenders)
    return Validation(tuple(measured), found.reference.top1 if found.reference else None)


def contest(model: nn.Module, task: Task, allocations: Sequence[Allocation]) -> Contest:
    """Return the contest of allocations beside the full-precision model, on that one's device."""
    corrected = copy.deepcopy(task.model).to(next(model.parameters()).device)
    first = task.candidates.select(allocations[0])
    quantized = assemble(corrected, first, task.weights_of(allocations[0]))
    accelerate(quantized, task.execution, max(task.candidates.num_groups))

    def ready(allocation: Allocation) -> nn.Module:
        set_quantizers(quantized, task.candidates.select(allocation))
        set_weights(quantized, task.weights_of(allocation))
        return quantized

    return Contest([partial(ready, a) for a in allocations], model, task.chunk_size)


def fits(images: Images) -> bool:
    """Return whether images are few enough to hold, as they are where workers share them."""
    if len(images) == 0 or isinstance(images.values, Tensor):
        return True
    return len(images) * next(iter(images.values[:1].units())).values.nbytes <= HELD


def _batch(task: Task) -> int:
    """Return the images after which a batch of each model ends."""
    return lcm(BATCH_SIZE, task.chunk_size)


def _in_parts(
    model: nn.Module,
    task: Task,
    allocations: Sequence[Allocation],
    images: Images,
    progress: Progress,
    workers: Workers,
) -> Scores:
    """Let workers score whole batches of the images; the scores are those of one process."""
    blocks = list(images.blocks(_batch(task), MEMORY))  # all are read before workers start
    whole = reduce(add, blocks)
    size = _batch(task) * max(1, len(whole) // (2 * workers.count() * _batch(task)))
    parts = [
        Part(str(a), score_part, whole[a : a + size], float(min(size, len(whole) - a)))
        for a in range(0, len(whole), size)
    ]
    light = replace(task, images=task.images[:0], reference=task.reference[:0])
    shared = copy.deepcopy(model).cpu(), light, tuple(allocations), len(whole)
    found = {part.name: scores for part, scores in workers.map(shared, parts, progress)}
    rows = [found[part.name] for part in parts]
    scores = [joined(column) for column in zip(*rows, strict=True)]
    return Scores(tuple(scores[1:]), scores[0])


def score_part(
    shared: tuple[nn.Module, Task, Sequence[Allocation], int],
    block: Block,
    device: str,
    progress: Progress,
) -> list[Score]:
    """Return the scores of the full-precision model and of allocations on some of the images."""
    model, task, allocations, images = shared
    found = contest(model.to(device), task, allocations).score([block], images, progress)
    assert found.reference is not None
    return [first(score, len(block)) for score in (found.reference, *found.models)]


def first(score: Score, images: int) -> Score:
    """Return the score of the first images."""
    kls = None if score.kls is None else score.kls[:images]
    return Score(kls, None if score.correct is None else score.correct[:images])


def joined(scores: Sequence[Score]) -> Score:
    """Return the score of all images, from those of neighbouring parts."""
    kls = [score.kls for score in scores if score.kls is not None]
    correct = [score.correct for score in scores if score.correct is not None]
    return Score(torch.cat(kls) if kls else None, torch.cat(correct) if correct else None)


def _measured(contender: Contender, score: Score, limits: Limits) -> Measured:
    proposal = contender.trial.proposal
    assert score.kls is not None  # there was a reference
    return Measured(
        contender.name,
        proposal.number,
        proposal.costs,
        limits.overhead(proposal.costs),
        contender.passes,
        contender.trial.observation.kl,
        tuple(score.kls.tolist()),
        None if score.correct is None else tuple(score.correct.tolist()),
    )


def save_validation(path: Path, validation: Validation, beside: Sequence[Path] = ()) -> None:
    """Write the KL and answer of every contender on every image.

    The digests of the files `beside` it are noted, so that they can only be read together.
    """
    rows = [
        {
            "name": m.name,
            "number": m.number,
            "bops": m.costs[Unit.BOPS],
            "overhead": m.overhead,
            "forwards": m.passes,
            "search_kl": m.search_kl,
            "kls": list(m.kls),
            "correct": None if m.correct is None else list(m.correct),
            "size": m.costs.get(Unit.BYTES),
        }
        for m in validation.measured
    ]
    content = {"measured": rows, "reference_top1": validation.reference_top1}
    write_sealed(path, content | {"files": companions(list(beside))})


def load_validation(path: Path) -> Validation:
    """Read a validation back.

    Raises:
        StudyError: the study has not come to its end, or a file of its end is damaged.

    >>> import pipeline
    >>> len(pipeline.load_validation(Path("studies/demo/validation.json")).measured[0].kls)
    400
    """
    try:
        content: Mapping[str, Any] = read_sealed(path)
        if "files" in content:  # not in studies of before
            check_companions(path, content["files"])
        return Validation(tuple(map(_read, content["measured"])), content["reference_top1"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold a study's validation, but: {error!r}") from error


def _read(row: Mapping[str, Any]) -> Measured:
    size = {} if row.get("size") is None else {Unit.BYTES: row["size"]}
    return Measured(
        row["name"],
        row["number"],
        {Unit.BOPS: row["bops"], **size},
        row["overhead"],
        row["forwards"],
        row["search_kl"],
        tuple(row["kls"]),
        row["correct"] and tuple(row["correct"]),
    )
