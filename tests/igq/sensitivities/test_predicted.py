"""Sensitivity predicted from gradients: as measured where errors are small, reproducible."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import igq
from igq.sensitivities import fisher_draw, predicted_passes
from tests.makers import FITTED

Make = Callable[..., nn.Module]


@pytest.fixture
def vit(make_vit: Make) -> nn.Module:
    """A small model."""
    return make_vit(depth=2)


@pytest.mark.slow
def test_predicted_sensitivities_are_those_measured_where_errors_are_small(
    vit: nn.Module, images: Tensor
) -> None:
    nearest = igq.observe(vit, images, replace(FITTED, assignment=igq.Assignment.NEAREST))
    candidates = igq.fit(nearest, (2, 4), bits=8)
    measured = igq.sensitivity(vit, candidates, images)
    predicted = igq.predicted_sensitivity(vit, candidates, images, draws=400)
    assert predicted.keys() == measured.keys()
    for layer, row in measured.items():
        assert predicted[layer].keys() == row.keys()
        for setting, value in row.items():
            assert 0.5 < predicted[layer][setting] / value < 2
    total, all_measured = (sum(sum(r.values()) for r in t.values()) for t in (predicted, measured))
    assert total == pytest.approx(all_measured, rel=0.3)


def test_the_same_arguments_give_the_same_answer(vit: nn.Module, images: Tensor) -> None:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2, 4), bits=4)
    first = igq.predicted_sensitivity(vit, candidates, images, draws=1)
    assert igq.predicted_sensitivity(vit, candidates, images, draws=1) == first
    assert igq.predicted_sensitivity(vit, candidates, images, draws=1, seed=1) != first


def test_the_model_stays_as_it_was(vit: nn.Module, images: Tensor) -> None:
    before, wanted = repr(vit), [p.requires_grad for p in vit.parameters()]
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2, 4), bits=4)
    igq.predicted_sensitivity(vit, candidates, images, draws=1)
    assert repr(vit) == before
    assert [p.requires_grad for p in vit.parameters()] == wanted
    assert all(p.grad is None for p in vit.parameters())


def test_progress_reaches_1(vit: nn.Module, images: Tensor) -> None:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2,), bits=4)
    heard: list[float] = []
    igq.predicted_sensitivity(vit, candidates, images, draws=1, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1


def test_drawn_vectors_have_the_fisher_information_as_their_covariance() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    p = logits.softmax(-1)[0]
    drawn = fisher_draw(logits.expand(200_000, -1), torch.Generator().manual_seed(0))
    expected = p.diag() - p[:, None] * p
    assert torch.allclose(drawn.T @ drawn / len(drawn), expected, atol=3e-3)


def test_more_images_counts_and_draws_count_for_more() -> None:
    assert predicted_passes(0, 2) == 0
    assert predicted_passes(4, 2, draws=2) == 2 * predicted_passes(2, 2, draws=2)
    assert predicted_passes(4, 2, draws=3) > predicted_passes(4, 2, draws=2)
    assert predicted_passes(4, 8, draws=2) > predicted_passes(4, 2, draws=2)


def test_little_memory_changes_nothing_but_the_order_of_the_work(
    vit: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2, 3, 4), bits=4)
    heard: list[float] = []
    whole = igq.predicted_sensitivity(vit, candidates, images[:1], draws=2)
    monkeypatch.setattr("igq.sensitivities.predicted.MEMORY", 1)
    parts = igq.predicted_sensitivity(vit, candidates, images[:1], 2, progress=heard.append)
    assert heard == pytest.approx([1 / 3, 2 / 3, 1])
    assert list(parts) == list(whole)
    for layer, row in whole.items():
        assert parts[layer] == pytest.approx(row, rel=1e-4)


@pytest.mark.parametrize(
    ("kept", "draws", "message"),
    [(0, 1, "needs at least 1 image, but got 0"), (2, 0, "`draws` must be at least 1, but got 0")],
)
def test_what_cannot_be_predicted_is_refused(
    vit: nn.Module, images: Tensor, kept: int, draws: int, message: str
) -> None:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2,), bits=4)
    with pytest.raises(igq.InvalidArgumentError, match=message):
        igq.predicted_sensitivity(vit, candidates, images[:kept], draws=draws)


def test_each_device_predicts_the_same(
    vit: nn.Module, images: Tensor, device: torch.device
) -> None:
    candidates = igq.fit(igq.observe(vit, images, FITTED), (2, 4), bits=8)
    here = igq.predicted_sensitivity(vit, candidates, images, draws=4)
    there = igq.predicted_sensitivity(vit.to(device), candidates, images, draws=4)
    for layer, row in here.items():
        assert there[layer] == pytest.approx(row, rel=0.05)
