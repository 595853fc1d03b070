"""Scores of several models on blocks of images: those that the whole set has at once."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from igq import InvalidArgumentError, evaluate
from pipeline.data import Block, Images, ImageSource, Stream
from pipeline.evaluation.scoring import Contest


@pytest.fixture
def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(77, 1, 8, 8, generator=generator)
    return Images("drawn", values, torch.arange(77) % 10, "")


def streamed(images: Images) -> Images:
    values, labels = images.loaded(), images.labels
    assert labels is not None
    source = ImageSource("drawn", lambda i: (values[i], int(labels[i])), len(values))
    return Images("drawn", Stream(source, range(len(values))), labels, "")


@pytest.mark.parametrize("memory", [0, 40 * 256, 10**9])
def test_blocks_score_image_by_image_as_the_whole_does(
    images: Images, model: nn.Module, other_model: nn.Module, memory: int
) -> None:
    contest = Contest([lambda: other_model, lambda: model], model)
    found = contest.score(streamed(images).blocks(32, memory), len(images))
    whole = evaluate(other_model, images.loaded(), model, images.labels)
    assert whole.kls is not None
    assert whole.correct is not None
    other, same = found.models
    assert other.kls is not None
    assert other.correct is not None
    assert torch.equal(other.kls, whole.kls)
    assert torch.equal(other.correct, whole.correct)
    assert same.kl == 0
    assert found.reference is not None
    assert found.reference.top1 == same.top1


def test_a_model_that_changes_is_made_ready_for_every_block(
    images: Images, model: nn.Module, other_model: nn.Module
) -> None:
    calls: list[str] = []

    def ready(name: str, made: nn.Module) -> Callable[[], nn.Module]:
        return lambda: calls.append(name) or made

    contest = Contest([ready("one", model), ready("other", other_model)])
    blocks = streamed(images).blocks(32)
    found = contest.score(blocks, len(images))
    assert calls == ["one", "other"] * 3
    assert found.reference is None
    assert [score.kl for score in found.models] == [None, None]


def test_progress_rises_to_the_whole(images: Images, model: nn.Module) -> None:
    shares: list[float] = []
    Contest([lambda: model], model).score(streamed(images).blocks(32), 77, shares.append)
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(32 / 77 / 2)
    assert shares[-1] == pytest.approx(1)


def test_no_images_are_refused(model: nn.Module) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 1 image, but got 0"):
        Contest([lambda: model]).score(iter(()), 0)


def test_labels_are_not_needed(images: Images, model: nn.Module) -> None:
    [score] = Contest([lambda: model]).score([Block(images.loaded(), None)], 77).models
    assert (score.kl, score.top1) == (None, None)
