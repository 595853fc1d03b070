"""Contenders on unseen images: the same scores however workers share the images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from igq import Limits, Observation, Unit
from igq.progress import Progress, silent
from pipeline.data import Images
from pipeline.evaluation.validation import Contender, joined, measure
from pipeline.evaluation.work import Here, Part
from pipeline.study.trials import Origin, Proposal, State, Trial
from tests.contracts.test_cluster import allocations, make_task


@dataclass
class Reversed:
    """Computes parts in this process, the last one first."""

    most: int
    where: str = "here"
    parts: int = 0

    def count(self) -> int:
        return self.most

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        self.parts = len(parts)
        yield from Here().map(shared, parts[::-1], progress)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_scores_do_not_depend_on_who_measures(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, count: int, labels: bool
) -> None:
    monkeypatch.setattr("pipeline.evaluation.work.WORTH_WORKERS", 0)
    monkeypatch.setattr("pipeline.evaluation.validation.BATCH_SIZE", 4)
    task = make_task(images=8, chunk_size=2)
    values = torch.randn(27, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    classes = torch.arange(27) % 10 if labels else None
    images = Images("random", values, classes, "0123")
    contenders = [
        Contender(str(i), Trial(proposal, State.COMPLETE, Observation((0.5,))), 0)
        for i, allocation in enumerate(allocations(task)[:3])
        for proposal in [Proposal(i, Origin.RANDOM, allocation, {Unit.BOPS: 100})]
    ]
    workers, told = Reversed(count), []
    alone = measure(task.model, task, limits, contenders, images)
    shared = measure(task.model, task, limits, contenders, images, told.append, workers)
    assert shared == alone
    assert workers.parts >= count
    assert told[-1] == 1.0
    assert (alone.reference_top1 is None) is not labels


def test_little_work_stays_in_this_process(limits: Limits) -> None:
    task, workers = make_task(images=8, chunk_size=2), Reversed(2)
    images = Images("random", task.images, None, "0123")
    proposal = Proposal(0, Origin.RANDOM, allocations(task)[0], {Unit.BOPS: 100})
    contender = Contender("a", Trial(proposal, State.COMPLETE, Observation((0.5,))), 0)
    measure(task.model, task, limits, [contender], images, silent, workers)
    assert workers.parts == 0


def test_nothing_is_joined_of_what_was_not_scored() -> None:
    from igq import Score

    found = joined([Score(torch.ones(2), None), Score(torch.zeros(1), None)])
    assert found.kls is not None
    assert found.kls.tolist() == [1.0, 1.0, 0.0]
    assert found.correct is None
