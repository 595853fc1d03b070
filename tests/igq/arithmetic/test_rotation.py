"""A rotated basis: the same products, inputs without outliers."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import igq
from igq import InputMethod, InvalidArgumentError, Rotation, UnsupportedModelError
from igq.arithmetic.rotation import RotatedLinear, rotate, rotation_signs, rotation_width
from igq.quantized import assemble, quantize_weights, rotated_layers, with_rotated
from tests.makers import FITTED

TOKENS = InputMethod.TOKENS


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turned(x: Tensor) -> Tensor:
    return rotate(x, rotation_signs(x.shape[-1]))


class TestRotate:
    @given(channels=st.integers(1, 200), seed=st.integers(0, 9))
    def test_lengths_and_angles_stay(self, channels: int, seed: int) -> None:
        x = noise(3, channels, seed=seed)
        torch.testing.assert_close(turned(x) @ turned(x).T, x @ x.T, atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize(
        ("channels", "width"), [(192, 64), (768, 64), (96, 32), (12, 4), (7, 1)]
    )
    def test_a_huge_value_is_spread_over_its_block_alone(self, channels: int, width: int) -> None:
        assert rotation_width(channels) == width
        x = torch.zeros(channels)
        x[0] = 8.0
        spread = turned(x[None])[0].abs()
        torch.testing.assert_close(spread[:width], torch.full((width,), 8 / width**0.5))
        assert spread[width:].count_nonzero() == 0

    def test_it_is_the_product_with_signs_and_sylvester_s_matrix(self) -> None:
        matrix = torch.tensor([[1.0]])
        for _ in range(3):
            matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
        x, signs = noise(5, 24), rotation_signs(24)
        expected = ((x.view(5, 3, 8) * signs) @ matrix / 8**0.5).flatten(1)
        torch.testing.assert_close(rotate(x, signs), expected, atol=1e-6, rtol=1e-6)

    def test_the_signs_that_stored_weights_were_rotated_by_never_change(self) -> None:
        assert rotation_signs(16).tolist() == [
            *(-1, 1, 1, -1, 1, 1, 1, 1),
            *(1, 1, 1, -1, -1, 1, -1, -1),
        ]

    def test_what_all_channels_have_in_common_does_not_become_one_huge_value(self) -> None:
        assert turned(torch.ones(1, 64)).abs().max() < 4  # 8 without signs


class TestRotatedLinear:
    @pytest.mark.parametrize("bias", [True, False])
    def test_it_is_the_same_layer(self, bias: bool) -> None:
        source, x = nn.Linear(48, 5, bias=bias), noise(2, 3, 48)
        made = RotatedLinear.of(source)
        torch.testing.assert_close(made(x), source(x), atol=1e-5, rtol=1e-5)
        assert (made.bias is None) is not bias
        assert not torch.equal(made.weight, source.weight)
        assert made.state_dict().keys() == source.state_dict().keys(), "signs are not stored"


class TestModel:
    def test_it_predicts_the_same_and_the_original_is_untouched(
        self, vit: nn.Module, images: Tensor
    ) -> None:
        turned = igq.rotated(vit, Rotation.ALL)
        torch.testing.assert_close(turned(images), vit(images), atol=1e-4, rtol=1e-4)
        assert not any(isinstance(module, RotatedLinear) for module in vit.modules())
        assert turned.head.weight is vit.head.weight

    @pytest.mark.parametrize(
        ("rotation", "places"),
        [
            (Rotation.NONE, set()),
            (Rotation.WIDE, {"qkv", "fc1"}),
            (Rotation.ALL, {"qkv", "proj", "fc1", "fc2"}),
        ],
    )
    def test_its_layers_say_so_and_so_do_a_quantized_copy_s(
        self, vit: nn.Module, images: Tensor, rotation: Rotation, places: set[str]
    ) -> None:
        turned = igq.rotated(vit, rotation)
        for model in (turned, assemble(turned, {}, {})):
            names = rotated_layers(model)
            assert {name.rpartition(".")[2] for name in names} == places
            assert len(names) == 2 * len(places)

    def test_rotating_again_changes_nothing_and_otherwise_is_refused(self, vit: nn.Module) -> None:
        turned = igq.rotated(vit, Rotation.WIDE)
        assert igq.rotated(turned, Rotation.WIDE) is turned
        for other in (Rotation.NONE, Rotation.ALL):
            with pytest.raises(InvalidArgumentError, match=r"must not be rotated, or as"):
                igq.rotated(turned, other)

    def test_functions_rotate_the_model_as_the_scheme_says(
        self, vit: nn.Module, images: Tensor
    ) -> None:
        turned = igq.rotated(vit, Rotation.WIDE)
        one, other = (igq.fit(igq.observe(m, images), (2, 4), bits=4) for m in (vit, turned))
        allocation = igq.uniform(one.layers, 2)
        first = igq.quantize(vit, one.select(allocation), 4)(images)
        assert torch.equal(first, igq.quantize(turned, other.select(allocation), 4)(images))
        assert igq.sensitivity(vit, one, images) == igq.sensitivity(turned, other, images)

    def test_its_quantized_weights_are_those_of_the_rotated_basis(
        self, vit: nn.Module, images: Tensor
    ) -> None:
        turned = igq.rotated(vit, Rotation.WIDE)
        fine = assemble(turned, {}, quantize_weights(turned, 8))
        torch.testing.assert_close(fine(images), vit(images), atol=0.5, rtol=0.2)
        wrong = assemble(turned, {}, quantize_weights(vit, 8))  # codes of another basis
        assert (wrong(images) - vit(images)).abs().max() > 1

    def test_an_outlier_costs_less(self, vit: nn.Module, images: Tensor) -> None:
        """One channel a hundred times as wide as others: what a rotation is for."""
        wild = copy.deepcopy(vit)
        with torch.no_grad():
            for block in wild.blocks:
                block.norm2.weight[3] *= 100
                block.mlp.fc1.weight[:, 3] /= 100
        kls = {}
        for rotation in (Rotation.NONE, Rotation.WIDE):
            turned = igq.rotated(wild, rotation)
            ranges = igq.observe(turned, images, replace(FITTED, inputs=TOKENS, rotation=rotation))
            chosen = igq.fit(ranges, (1,), bits=6).select(igq.uniform(ranges.layers, 1))
            kls[rotation] = igq.evaluate(assemble(turned, chosen, {}), images, reference=wild).kl
        assert kls[Rotation.WIDE] < kls[Rotation.NONE]

    @pytest.mark.parametrize("name", ["patch_embed.proj", "blocks.0"])
    def test_only_linear_layers_can_be_rotated(self, vit: nn.Module, name: str) -> None:
        with pytest.raises(UnsupportedModelError, match=f"must be linear, but {name} is a"):
            with_rotated(vit, [name])

    def test_a_quantized_model_cannot(self, quantized: nn.Module) -> None:
        with pytest.raises(UnsupportedModelError, match="must be in full precision"):
            igq.rotated(quantized, Rotation.ALL)

    def test_it_follows_the_model(
        self, vit: nn.Module, images: Tensor, device: torch.device
    ) -> None:
        turned = igq.rotated(vit, Rotation.ALL)
        there = copy.deepcopy(assemble(turned, {}, quantize_weights(turned, 8))).to(device)
        expected = assemble(turned, {}, quantize_weights(turned, 8))(images)
        torch.testing.assert_close(there(images.to(device)).cpu(), expected, atol=1e-3, rtol=1e-3)

    def test_it_follows_the_model_s_type(self, vit: nn.Module, images: Tensor) -> None:
        turned = copy.deepcopy(igq.rotated(vit, Rotation.ALL)).bfloat16()
        assert turned(images.bfloat16()).dtype is torch.bfloat16
