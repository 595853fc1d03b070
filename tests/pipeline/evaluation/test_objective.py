"""A trial's numbers: those of the quantized model that the allocation makes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import igq
from igq import Allocation, InvalidArgumentError, Observation
from igq.evaluation import log_probabilities
from igq.quantized import quantize_weights
from igq.vit import stages
from igq.vit.families import Stage
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.prefixes import Prefixes
from pipeline.evaluation.task import Task
from tests.makers import FITTED, groups


@pytest.fixture(scope="module")
def task(model: nn.Module) -> Task:
    """Seven images, in chunks of three."""
    images = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Task(
        model=model,
        weights={4: quantize_weights(model, 4)},
        candidates=igq.fit(igq.observe(model, images[:2], FITTED), (1, 2, 4), bits=4),
        images=images,
        reference=log_probabilities(model, images),
        chunk_size=3,
    )


def uniform(task: Task, number: int) -> Allocation:
    return igq.uniform(task.candidates.layers, number)


def flat(chunks: list[Observation]) -> torch.Tensor:
    return torch.tensor([kl for chunk in chunks for kl in chunk.kls])


@pytest.mark.parametrize("number", [1, 2, 4])
def test_kls_are_those_of_the_quantized_model(task: Task, number: int) -> None:
    allocation = uniform(task, number)
    selected = task.candidates.select(allocation)
    quantized = igq.quantize(task.model, selected, weight_bits=4)
    expected = igq.evaluate(quantized, task.images, reference=task.model).kls
    chunks = list(Objective(task).evaluate(allocation))
    torch.testing.assert_close(flat(chunks), expected)


def test_logit_mses_are_squared_changes_of_the_logits(task: Task) -> None:
    allocation = uniform(task, 2)
    quantized = igq.quantize(task.model, task.candidates.select(allocation), weight_bits=4)
    change = quantized(task.images) - task.model(task.images)
    expected = (change - change.mean(-1, keepdim=True)).square().mean(-1)
    chunks = list(Objective(task).evaluate(allocation))
    found = torch.tensor([mse for chunk in chunks for mse in chunk.logit_mses])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_chunks_have_the_images_in_order_and_the_rest_at_the_end(task: Task) -> None:
    chunks = list(Objective(task).evaluate(uniform(task, 2)))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert task.num_chunks == 3


def test_trials_of_one_worker_leave_no_trace(task: Task) -> None:
    objective = Objective(task)
    first = list(objective.evaluate(uniform(task, 1)))
    other = list(objective.evaluate(uniform(task, 4)))
    assert list(objective.evaluate(uniform(task, 1))) == first
    assert other != first


def test_a_trial_that_was_stopped_leaves_no_trace(task: Task) -> None:
    objective = Objective(task)
    next(objective.evaluate(uniform(task, 4)))
    again = list(objective.evaluate(uniform(task, 1)))
    assert again == list(Objective(task).evaluate(uniform(task, 1)))


def test_the_model_of_the_task_stays_in_full_precision(task: Task) -> None:
    before = repr(task.model)
    list(Objective(task).evaluate(uniform(task, 2)))
    assert repr(task.model) == before
    assert torch.equal(log_probabilities(task.model, task.images), task.reference)


def test_a_kl_that_is_not_finite_is_an_error(task: Task) -> None:
    damaged = replace(task, reference=torch.full_like(task.reference, torch.nan))
    with pytest.raises(FloatingPointError, match=r"^the KL of an image is not finite$"):
        list(Objective(damaged).evaluate(uniform(task, 2)))


def test_an_allocation_of_another_model_is_refused(task: Task) -> None:
    with pytest.raises(InvalidArgumentError, match="`allocation` must name each"):
        list(Objective(task).evaluate(Allocation.of({"fc": 2})))


class TestPrefixes:
    def test_what_was_kept_is_given_back(self) -> None:
        prefixes, x = Prefixes(memory=100), torch.zeros(2)
        prefixes.keep("a", x)
        found = prefixes.last(["a", "b"])
        assert found is not None
        assert found[0] == 0
        assert found[1] is x
        assert prefixes.last(["b"]) is None

    def test_the_last_of_the_keys_counts(self) -> None:
        prefixes, x, y = Prefixes(memory=100), torch.zeros(2), torch.ones(2)
        prefixes.keep("b", y)
        prefixes.keep("a", x)
        found = prefixes.last(["a", "b", "c"])
        assert found is not None
        assert found[0] == 1
        assert found[1] is y

    def test_what_was_not_used_for_longest_goes_first(self) -> None:
        prefixes = Prefixes(memory=16)
        for key in "ab":
            prefixes.keep(key, torch.zeros(2))
        assert prefixes.last("a") is not None  # used again
        prefixes.keep("c", torch.zeros(2))
        assert [prefixes.last(key) is not None for key in "abc"] == [True, False, True]

    def test_what_comes_before_the_last_counts_as_used(self) -> None:
        prefixes = Prefixes(memory=24)
        for key in "abc":
            prefixes.keep(key, torch.zeros(2))
        prefixes.last("ac")
        prefixes.keep("d", torch.zeros(2))
        assert [prefixes.last(key) is not None for key in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize("changed", ["blocks.0.attn.qkv", "blocks.0.mlp.fc2"])
def test_a_trial_that_goes_on_from_another_has_the_numbers_it_would_have_alone(
    task: Task, changed: str
) -> None:
    objective = Objective(task)
    first = uniform(task, 2)
    other = Allocation.of({**first, changed: groups(4)})
    list(objective.evaluate(first))
    assert list(objective.evaluate(other)) == list(Objective(task).evaluate(other))


def test_only_what_follows_a_change_is_computed_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = Objective(task)
    first = uniform(task, 2)
    list(objective.evaluate(first))
    computed: list[int] = []

    def counted(model: nn.Module) -> list[Stage]:
        def count(place: int, step: Stage) -> Stage:
            return lambda x: (computed.append(place), step(x))[1]

        return [count(place, step) for place, step in enumerate(stages(model))]

    monkeypatch.setattr("pipeline.evaluation.objective.stages", counted)
    list(objective.evaluate(Allocation.of({**first, "blocks.0.mlp.fc2": groups(4)})))
    assert computed == [1, 2] * task.num_chunks  # the block and the head
