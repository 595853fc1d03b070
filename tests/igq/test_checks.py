"""Images that do not belong to a model are refused by rule and value, and nothing is computed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import InvalidArgumentError, UnsupportedModelError

GOOD = torch.rand(2, 1, 8, 8)
CASES: tuple[tuple[object, str], ...] = (
    (GOOD.numpy(), "`images` must be a tensor, but got ndarray; give torch.as_tensor."),
    (
        GOOD.byte(),
        "`images` must be floats, but are uint8; give images / 255, normalised as in the model's "
        "training.",
    ),
    (
        GOOD[0],
        "`images` must have four axes (images, channels, height, width), but have shape [1, 8, 8].",
    ),
    (GOOD / 0, "`images` must be finite, but hold NaN or infinity."),
    (
        GOOD.expand(2, 3, 8, 8),
        "`images` must have the 1 channels that the model takes, but have shape [2, 3, 8, 8].",
    ),
    (
        torch.rand(2, 1, 16, 8),
        "`images` must have the model's size, 8 x 8, but have shape [2, 1, 16, 8].",
    ),
)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("images", "message"), CASES, ids=[message for _, message in CASES])
@pytest.mark.parametrize("take", [igq.observe, igq.evaluate])
def test_images_are_refused(
    vit: nn.Module, take: Callable[..., object], images: object, message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        take(vit, images)
    assert str(raised.value) == message


@pytest.mark.parametrize("take", [igq.observe, igq.evaluate])
def test_a_model_in_another_type_is_refused(
    make_vit: Callable[..., nn.Module], take: Callable[..., object]
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"^the model must be in float32 as the images"):
        take(make_vit().half(), GOOD)


def test_images_of_any_size_where_the_model_takes_them() -> None:
    arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 3, "embed_dim": 12}
    arguments |= {"depth": 1, "num_heads": 3, "dynamic_img_size": True}
    vit = igq.create("vit_tiny_patch16_224", arguments)
    assert igq.evaluate(vit, torch.rand(2, 1, 16, 16), reference=vit).kl == 0


@pytest.mark.parametrize("odd", [-1, 10])
def test_a_label_that_is_no_class_is_refused(vit: nn.Module, odd: int) -> None:
    labels = torch.tensor([3, odd])
    with pytest.raises(InvalidArgumentError) as raised:
        igq.evaluate(vit, GOOD, labels=labels)
    assert str(raised.value) == (
        f"`labels` must be classes of the model, from 0 to 9, but one is {odd}."
    )


@pytest.mark.parametrize("beyond", [3e38, float("inf")])
def test_predictions_beyond_float32_are_no_observation(beyond: float) -> None:
    from igq.evaluation import observation

    with pytest.raises(FloatingPointError, match="of an image is not finite"):
        observation(Tensor([[0.0, -1.0]]), Tensor([[0.0, -beyond]]))
