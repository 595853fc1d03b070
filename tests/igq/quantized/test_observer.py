"""One pass over the calibration images."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import InvalidArgumentError, Ranges, grouping_of
from tests.makers import FITTED, num_slices


def test_every_layer_that_is_fitted_has_the_ranges_of_every_image(
    vit: nn.Module, ranges: Ranges
) -> None:
    assert ranges.layers == igq.layers(vit)
    assert ranges.scheme is FITTED
    assert {name: values.shape[0] for name, values in ranges.values.items()} == {
        layer.name: 6 for layer in igq.layers(vit) if grouping_of(layer, FITTED).fitted
    }


def test_ranges_of_a_linear_input_are_those_that_a_hook_sees(
    vit: nn.Module, images: Tensor, ranges: Ranges
) -> None:
    seen: list[Tensor] = []
    hook = vit.blocks[1].mlp.fc1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vit(images)
    hook.remove()
    (x,) = seen
    expected = torch.stack((x.amin(1), x.amax(1)), dim=-1)
    torch.testing.assert_close(ranges["blocks.1.mlp.fc1"], expected, atol=1e-5, rtol=1e-5)


def test_ranges_of_a_softmax_map_are_those_of_timm_s_unfused_attention(
    make_vit: Callable[..., nn.Module], images: Tensor, ranges: Ranges
) -> None:
    vit = make_vit()
    attn = vit.blocks[0].attn
    attn.fused_attn = False
    seen: list[Tensor] = []
    attn.attn_drop.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    vit(images)
    (x,) = seen
    expected = torch.stack((x.amin(-1), x.amax(-1)), dim=-1).reshape(6, -1, 2)
    torch.testing.assert_close(ranges["blocks.0.attn.softmax"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_the_batch_size_does_not_matter(
    vit: nn.Module, images: Tensor, ranges: Ranges, batch_size: int
) -> None:
    again = igq.observe(vit, images, FITTED, batch_size)
    for name, values in ranges.values.items():
        torch.testing.assert_close(again[name], values, atol=1e-5, rtol=1e-5)


def test_the_model_is_untouched(make_vit: Callable[..., nn.Module], images: Tensor) -> None:
    vit = make_vit().train()
    before = {name: id(module) for name, module in vit.named_modules()}
    igq.observe(vit, images)
    assert {name: id(module) for name, module in vit.named_modules()} == before
    assert vit.training


def test_ranges_come_back_to_the_cpu(
    make_vit: Callable[..., nn.Module], images: Tensor, ranges: Ranges, device: torch.device
) -> None:
    there = igq.observe(make_vit().to(device), images, FITTED)
    for name, values in ranges.values.items():
        torch.testing.assert_close(there[name], values, atol=1e-3, rtol=1e-3)


def test_no_images_are_refused(vit: nn.Module) -> None:
    message = r"^calibration needs at least 1 image, but got 0\.$"
    with pytest.raises(InvalidArgumentError, match=message):
        igq.observe(vit, torch.zeros(0, 1, 8, 8))


def test_the_number_of_slices_is_that_of_the_layer(vit: nn.Module, ranges: Ranges) -> None:
    for name, values in ranges.values.items():
        layer = next(layer for layer in igq.layers(vit) if layer.name == name)
        assert values.shape == (6, num_slices(layer), 2)
