"""Allocations measured beside each other on images that no choice was made on."""

import copy
from collections.abc import Callable, Mapping
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq import Allocation, BopsTable, Score, evaluate, paired_difference
from igq.evaluation import accuracy, log_probabilities
from igq.vit import accelerate, assemble, set_quantizers
from pipeline.data import Images
from pipeline.objective import Task
from pipeline.study import Comparison, Origin, Trial


def compare(
    model: nn.Module,
    task: Task,
    bops: BopsTable,
    contenders: Mapping[str, Trial],
    validation: Images,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[tuple[Comparison, ...], float | None]:
    """Measure trials on the same images; gives also the top-1 of `model`, in full precision.

    An allocation that several contenders share is measured once.
    """
    allocations = list(dict.fromkeys(t.proposal.allocation for t in contenders.values()))
    total, seen = len(validation) * (len(allocations) + 1), 0

    def count(batch: int) -> None:
        nonlocal seen
        seen += batch
        progress(seen / total)

    reference = log_probabilities(model, validation.values, progress=count)
    corrected = copy.deepcopy(task.model).to(next(model.parameters()).device)
    quantized = assemble(corrected, task.candidates.select(allocations[0]), task.weights)
    accelerate(quantized, task.execution, max(task.candidates.num_groups))

    def score(allocation: Allocation) -> Score:
        set_quantizers(quantized, task.candidates.select(allocation))
        labels, size = validation.labels, task.chunk_size
        return evaluate(quantized, validation.values, reference, labels, size, progress=count)

    scores = {allocation: score(allocation) for allocation in allocations}
    uniform = contenders.get(Origin.UNIFORM.value)
    rows = tuple(
        _row(name, trial, scores, uniform or trial, bops) for name, trial in contenders.items()
    )
    if validation.labels is None:
        return rows, None
    return rows, accuracy(reference, validation.labels)


def _row(
    name: str,
    trial: Trial,
    scores: Mapping[Allocation, Score],
    uniform: Trial,
    bops: BopsTable,
) -> Comparison:
    score = scores[trial.proposal.allocation]
    kls, beside = _kls(score), _kls(scores[uniform.proposal.allocation])
    spread = paired_difference(kls, torch.zeros_like(kls))
    difference = paired_difference(kls, beside)
    return Comparison(
        name=name,
        number=trial.number,
        bops=trial.proposal.bops,
        overhead=bops.overhead(trial.proposal.bops),
        kl=spread.mean,
        kl_error=spread.standard_error,
        difference=difference.mean,
        difference_error=difference.standard_error,
        top1=score.top1,
        search_kl=fmean(trial.kls),
    )


def _kls(score: Score) -> Float[Tensor, " images"]:
    assert score.kls is not None  # there was a reference
    return score.kls
