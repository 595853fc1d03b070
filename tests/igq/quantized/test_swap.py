"""Copies of a model whose activations pass slots and whose weights are quantized."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import GroupQuantizer, InvalidArgumentError, UnsupportedModelError, WeightsError
from igq.grouping import Quantizer, grouping_of
from igq.modules import Observer
from igq.quantized import (
    assemble,
    quantize_weights,
    quantized_weights,
    quantizers,
    set_quantizers,
    with_slots,
)
from tests.makers import FITTED

Make = Callable[..., nn.Module]


def selected(candidates: igq.Candidates, num_groups: int) -> igq.Selection:
    return candidates.select(igq.uniform(candidates.layers, num_groups))


def assert_equal(one: Quantizer, other: Quantizer) -> None:
    assert (type(one), one.bits, one.grouping) == (type(other), other.bits, other.grouping)
    if isinstance(one, GroupQuantizer):
        assert torch.equal(one.lower, other.lower)
        assert torch.equal(one.upper, other.upper)


def far(one: Tensor, other: Tensor) -> float:
    """Mean KL between two models' predictions."""
    return igq.evaluation.divergences(one.log_softmax(-1), other.log_softmax(-1)).mean().item()


class TestSlots:
    def test_with_nothing_in_them_the_copy_is_the_original(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        copy = with_slots(variant, lambda layer: nn.Identity())
        torch.testing.assert_close(copy(its_images), variant(its_images), atol=1e-5, rtol=1e-5)

    def test_attention_written_out_is_the_fused_one(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        copy = with_slots(variant, lambda layer: Observer(grouping_of(layer, FITTED)))
        torch.testing.assert_close(copy(its_images), variant(its_images), atol=1e-5, rtol=1e-5)

    def test_each_layer_gets_a_slot_of_its_own_that_sees_its_activation_once(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        observers = {
            layer.name: Observer(grouping_of(layer, FITTED)) for layer in igq.layers(variant)
        }
        with_slots(variant, lambda layer: observers[layer.name])(its_images)
        for layer in igq.layers(variant):
            assert [len(seen) for seen in observers[layer.name].seen] == [3], layer.name

    def test_parameters_are_shared_and_not_copied(self, vit: nn.Module) -> None:
        copy = with_slots(vit, lambda layer: nn.Identity())
        owned = {name: id(parameter) for name, parameter in vit.named_parameters()}
        assert {name: id(parameter) for name, parameter in copy.named_parameters()} == owned

    def test_the_original_keeps_its_modules(self, make_vit: Make) -> None:
        vit = make_vit().train()
        before = {name: id(module) for name, module in vit.named_modules()}
        copy = with_slots(vit, lambda layer: nn.Identity())
        assert {name: id(module) for name, module in vit.named_modules()} == before
        assert vit.training
        assert not copy.training


class TestQuantize:
    def test_the_original_is_untouched(self, make_vit: Make, candidates: igq.Candidates) -> None:
        vit = make_vit()
        modules = {name: id(module) for name, module in vit.named_modules()}
        tensors = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        quantized = igq.quantize(vit, selected(candidates, 2), weight_bits=4)
        with torch.no_grad():
            for parameter in quantized.parameters():
                parameter.zero_()

        assert {name: id(module) for name, module in vit.named_modules()} == modules
        after = vit.state_dict()
        assert after.keys() == tensors.keys()
        assert all(torch.equal(after[name], tensors[name]) for name in tensors)

    def test_all_that_is_listed_is_quantized_with_what_was_given(
        self, vit: nn.Module, candidates: igq.Candidates
    ) -> None:
        chosen = selected(candidates, 4)
        quantized = igq.quantize(vit, chosen, weight_bits=3)
        found = quantizers(quantized)
        assert found.keys() == chosen.keys() == {layer.name for layer in igq.layers(vit)}
        for name, quantizer in chosen.items():
            assert_equal(found[name], quantizer)
        weights = quantized_weights(quantized)
        assert weights.keys() == {layer.name for layer in igq.layers(vit) if layer.weighted}
        assert {weight.bits for weight in weights.values()} == {3}

    def test_no_linear_layer_keeps_its_own_weight(self, quantized: nn.Module) -> None:
        assert not [m for m in quantized.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        for name, weight in quantized_weights(quantized).items():
            assert torch.equal(quantized.get_submodule(name).weight, weight.dequantize())

    def test_no_image_influences_another(self, quantized: nn.Module, images: Tensor) -> None:
        alone = torch.cat([quantized(image[None]) for image in images])
        torch.testing.assert_close(quantized(images), alone, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("num_groups", [1, 16])
    def test_8_bits_are_closer_than_4(
        self, vit: nn.Module, ranges: igq.Ranges, images: Tensor, num_groups: int
    ) -> None:
        distances = []
        for bits in (8, 4, 2):
            chosen = selected(igq.fit(ranges, (num_groups,), bits), num_groups)
            distances.append(far(vit(images), igq.quantize(vit, chosen, bits)(images)))
        assert distances == sorted(distances)

    def test_8_bits_and_one_group_are_close_to_full_precision(
        self, vit: nn.Module, ranges: igq.Ranges, images: Tensor
    ) -> None:
        chosen = selected(igq.fit(ranges, (1,), bits=8), 1)
        quantized = igq.quantize(vit, chosen, weight_bits=8)
        assert far(vit(images), quantized(images)) < 0.02 < far(vit(images), 0 * vit(images))

    def test_layers_that_are_not_named_stay_in_floating_point(
        self, vit: nn.Module, candidates: igq.Candidates
    ) -> None:
        name = "blocks.1.mlp.fc2"
        quantized = igq.quantize(vit, {name: candidates.quantizers[name][2]}, weight_bits=4)
        assert quantizers(quantized).keys() == {name}

    def test_variants_are_quantized_as_well(self, variant: nn.Module, its_images: Tensor) -> None:
        candidates = igq.fit(igq.observe(variant, its_images, FITTED), (8,), bits=8)
        quantized = igq.quantize(variant, selected(candidates, 8), weight_bits=8)
        assert 0 < far(variant(its_images), quantized(its_images)) < 0.02

    def test_a_bf16_model_is_quantized_in_bf16(self, make_vit: Make, images: Tensor) -> None:
        vit, images = make_vit().bfloat16(), images.bfloat16()
        candidates = igq.fit(igq.observe(vit, images, FITTED), (2,), bits=8)
        quantized = igq.quantize(vit, selected(candidates, 2), weight_bits=8)
        outputs = quantized(images)
        assert outputs.dtype == torch.bfloat16
        assert far(vit(images).float(), outputs.float()) < 0.1

    def test_a_quantized_model_can_be_cast_to_bf16(
        self, quantized: nn.Module, make_vit: Make, candidates: igq.Candidates, images: Tensor
    ) -> None:
        mine = igq.quantize(make_vit(), selected(candidates, 2), weight_bits=4).bfloat16()
        assert far(quantized(images), mine(images.bfloat16()).float()) < 0.5

    def test_a_model_on_a_gpu_gets_its_quantizers_there(
        self, make_vit: Make, candidates: igq.Candidates, images: Tensor, device: torch.device
    ) -> None:
        vit = make_vit()
        expected = igq.quantize(vit, selected(candidates, 2), weight_bits=8)(images)
        there = igq.quantize(vit.to(device), selected(candidates, 2), weight_bits=8)
        assert far(expected, there(images.to(device)).cpu()) < 1e-2

    def test_a_quantized_model_is_not_quantized_again(
        self, quantized: nn.Module, candidates: igq.Candidates
    ) -> None:
        message = r"^the model must be in full precision, but is quantized already\.$"
        with pytest.raises(UnsupportedModelError, match=message):
            igq.quantize(quantized, selected(candidates, 2), weight_bits=4)

    @pytest.mark.parametrize("bits", [1, 9])
    def test_bits_out_of_range_are_refused(self, vit: nn.Module, bits: int) -> None:
        with pytest.raises(InvalidArgumentError, match=f"but got weight_bits={bits}"):
            igq.quantize(vit, {}, weight_bits=bits)

    def test_a_quantizer_of_an_unknown_layer_is_refused(
        self, vit: nn.Module, candidates: igq.Candidates
    ) -> None:
        unknown = {"blocks.9.mlp.fc1": candidates.quantizers["head"][1]}
        message = r"^a quantizer must name a layer of the model, but got blocks\.9\.mlp\.fc1\.$"
        with pytest.raises(InvalidArgumentError, match=message):
            igq.quantize(vit, unknown, weight_bits=4)

    def test_a_weight_that_is_not_finite_is_refused(self, make_vit: Make) -> None:
        vit = make_vit()
        vit.blocks[0].mlp.fc1.weight.data[0, 0] = float("nan")
        with pytest.raises(WeightsError, match="weights must be finite"):
            igq.quantize(vit, {}, weight_bits=4)


class TestReuse:
    """A trial puts other quantizers into a model that it was given once."""

    def test_setting_quantizers_is_quantizing_anew(
        self, vit: nn.Module, candidates: igq.Candidates, images: Tensor
    ) -> None:
        reused = assemble(vit, {}, quantize_weights(vit, 4))
        for num_groups in (4, 1, 2):
            set_quantizers(reused, selected(candidates, num_groups))
            anew = igq.quantize(vit, selected(candidates, num_groups), weight_bits=4)
            assert torch.equal(reused(images), anew(images))

    def test_what_was_there_before_is_gone(
        self, vit: nn.Module, candidates: igq.Candidates, images: Tensor
    ) -> None:
        reused = assemble(vit, selected(candidates, 2), {})
        set_quantizers(reused, {})
        assert quantizers(reused) == {}
        torch.testing.assert_close(reused(images), vit(images), atol=1e-5, rtol=1e-5)
