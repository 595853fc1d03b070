"""Corrected weights and sensitivities are the same with any number of threads."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

import igq
from igq.sensitivities import predicted_sensitivity
from igq.threads import with_threads

Found = TypeVar("Found")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """Return a model that is large enough for torch to split its products among threads."""
    torch.manual_seed(0)
    arguments = {"img_size": 16, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    return igq.create("vit_tiny_patch16_224", {**arguments, "embed_dim": 96, "depth": 2})


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def candidates(vit: nn.Module, images: Tensor) -> igq.Candidates:
    return igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=4)


def by_threads(compute: Callable[[], Found]) -> list[Found]:
    """Return what is computed with one thread, with two and with three."""
    return [with_threads(count)(compute)() for count in (1, 2, 3)]


def test_the_number_of_threads_is_put_back() -> None:
    @with_threads(more := torch.get_num_threads() + 1)
    def failing() -> None:
        raise ValueError(str(torch.get_num_threads()))

    with pytest.raises(ValueError, match=f"^{more}$"):
        failing()
    assert torch.get_num_threads() == more - 1


def test_corrected_weights(vit: nn.Module, images: Tensor, candidates: igq.Candidates) -> None:
    first, *others = by_threads(lambda: igq.correct(vit, candidates, images, 4, steps=2))
    for other in others:
        for name, weight in first.weights.items():
            assert torch.equal(weight.codes, other.weights[name].codes), name
            assert torch.equal(weight.scale, other.weights[name].scale), name
        for name, parameter in first.model.named_parameters():
            assert torch.equal(parameter, other.model.get_parameter(name)), name


def test_predicted_sensitivities(
    vit: nn.Module, images: Tensor, candidates: igq.Candidates
) -> None:
    first, *others = by_threads(lambda: predicted_sensitivity(vit, candidates, images))
    assert others == [first, first]


@pytest.mark.slow
def test_measured_sensitivities(vit: nn.Module, images: Tensor, candidates: igq.Candidates) -> None:
    first, *others = by_threads(lambda: igq.sensitivity(vit, candidates, images, 8))
    assert others == [first, first]
