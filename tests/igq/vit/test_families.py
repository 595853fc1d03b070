"""The contract of every family, and properties of Swin, EVA and distilled DeiT alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import igq
from igq import ArtifactError, Execution, Kind, Layer, Rotation, Scheme
from igq.grouping import SliceQuantizer, grouping_of
from igq.modules import Observer
from igq.quantized import accelerate, assemble, rotated_layers, with_slots
from igq.vit import stages
from tests.makers import FITTED, bops_of, groups, num_slices

Make = Callable[..., nn.Module]
Noise = Callable[..., Tensor]
ONE_OF_EACH = pytest.mark.parametrize(
    "name", ["distilled", "deit-3", "dinov2-swiglu-packed", "swin-that-pads", "beit", "eva-02"]
)


def finely_quantized(model: nn.Module, bits: int = 16) -> nn.Module:
    """Every slice of every layer with a quantizer of its own."""
    chosen = {
        layer.name: SliceQuantizer(bits, grouping_of(layer, FITTED)) for layer in igq.layers(model)
    }
    return assemble(model, chosen, {})


def quantized(model: nn.Module, images: Tensor) -> nn.Module:
    candidates = igq.fit(igq.observe(model, images, FITTED), (3,), bits=8)
    chosen = candidates.select(igq.uniform(candidates.layers, 3))
    return igq.quantize(model, chosen, weight_bits=8)


def observed(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The ranges of every layer, those of q, k and v among them."""
    observers = {layer.name: Observer(grouping_of(layer, FITTED)) for layer in igq.layers(model)}
    with_slots(model, lambda layer: observers[layer.name])(images)
    return {name: observer.ranges() for name, observer in observers.items()}


class TestEveryFamily:
    def test_with_16_bits_for_each_slice_a_copy_predicts_as_its_original(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        expected = variant(its_images)
        outputs = finely_quantized(variant)(its_images)
        assert expected.std() > 0.1
        assert not torch.equal(outputs, expected)
        torch.testing.assert_close(outputs, expected, atol=1e-3, rtol=0)

    @pytest.mark.slow
    def test_its_weights_can_be_corrected(self, variant: nn.Module, its_images: Tensor) -> None:
        candidates = igq.fit(igq.observe(variant, its_images, FITTED), (2, 3), bits=4)
        made = igq.correct(variant, candidates, its_images, 4, steps=1)
        chosen = candidates.select(igq.uniform(candidates.layers, 2))
        assert assemble(made.model, chosen, made.weights)(its_images).isfinite().all()

    def test_rotated_it_predicts_the_same(self, variant: nn.Module, its_images: Tensor) -> None:
        turned = igq.rotated(variant, Rotation.ALL)
        linears = [layer.name for layer in igq.layers(turned) if layer.kind is Kind.LINEAR]
        assert rotated_layers(turned) == linears
        torch.testing.assert_close(turned(its_images), variant(its_images), atol=1e-3, rtol=0)

    def test_groups_of_a_cell_each_with_16_bits_change_nothing(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        turned = igq.rotated(variant, Rotation.WIDE)
        ranges = igq.observe(turned, its_images, Scheme.BEST)
        chosen = igq.fit(ranges, (2,), bits=8).upper_bound()
        fine = {name: SliceQuantizer(16, q.grouping, q.num_groups) for name, q in chosen.items()}
        outputs = assemble(turned, fine, {})(its_images)
        torch.testing.assert_close(outputs, variant(its_images), atol=1e-3, rtol=0)

    @pytest.mark.slow
    def test_its_rotated_copy_can_be_corrected_and_saved(
        self, variant: nn.Module, its_images: Tensor, tmp_path: Path
    ) -> None:
        candidates = igq.fit(igq.observe(variant, its_images, Scheme.BEST), (2, 3), bits=4)
        made = igq.correct(variant, candidates, its_images, 4, steps=1)
        model = made.quantize(candidates.select(igq.uniform(candidates.layers, 2)))
        again = igq.load(igq.save(model, tmp_path / "artifact"))
        assert torch.equal(again.model(its_images), model(its_images))
        assert set(again.allocation.values()) == {groups(2)}

    def test_products_in_bfloat16_change_its_predictions_little(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        eager = quantized(variant, its_images)(its_images)
        fast = accelerate(quantized(variant, its_images), Execution(bfloat16=True))(its_images)
        assert (fast - eager).square().mean().sqrt() < 0.2 * eager.std()

    def test_no_image_influences_another(self, variant: nn.Module, its_images: Tensor) -> None:
        model = finely_quantized(variant, bits=4)
        alone = torch.cat([model(image[None]) for image in its_images])
        torch.testing.assert_close(model(its_images), alone, atol=1e-4, rtol=1e-4)

    def test_the_original_is_untouched(self, variant: nn.Module, its_images: Tensor) -> None:
        modules = {name: id(module) for name, module in variant.named_modules()}
        tensors = {name: tensor.clone() for name, tensor in variant.state_dict().items()}
        quantized(variant, its_images)
        assert {name: id(module) for name, module in variant.named_modules()} == modules
        after = variant.state_dict()
        assert after.keys() == tensors.keys()
        assert all(torch.equal(after[name], tensors[name]) for name in tensors)

    def test_a_copy_has_its_layers_and_parameters(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        copy = with_slots(variant, lambda layer: nn.Identity())
        assert igq.layers(copy) == igq.layers(variant)
        owned = {name: id(parameter) for name, parameter in variant.named_parameters()}
        assert {name: id(parameter) for name, parameter in copy.named_parameters()} == owned

    def test_the_number_of_slices_is_what_observing_finds(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        ranges = observed(variant, its_images)
        for layer in igq.layers(variant):
            assert ranges[layer.name].shape == (3, num_slices(layer), 2), layer.name

    def test_products_are_as_large_as_they_are_counted(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        """`tokens x channels` of one image is what passes a slot."""
        sizes = {}

        class Counts(nn.Module):
            def __init__(self, layer: Layer) -> None:
                super().__init__()
                self.layer = layer

            def forward(self, x: Tensor) -> Tensor:
                sizes[self.layer.name] = x.numel() // len(x)
                return x

        with_slots(variant, Counts)(its_images)
        for layer in igq.layers(variant):
            assert sizes[layer.name] == layer.tokens * layer.channels, layer.name

    def test_in_bf16(self, variant: nn.Module, its_images: Tensor) -> None:
        expected = variant(its_images)
        outputs = finely_quantized(variant.bfloat16(), bits=8)(its_images.bfloat16())
        assert outputs.dtype == torch.bfloat16
        assert (outputs.float() - expected).std() < 0.03 * expected.std()

    def test_on_a_gpu(self, variant: nn.Module, its_images: Tensor, device: torch.device) -> None:
        expected = variant(its_images)
        outputs = finely_quantized(variant.to(device))(its_images.to(device))
        torch.testing.assert_close(outputs.cpu(), expected, atol=1e-2, rtol=0)

    def test_its_artifact_predicts_the_same(
        self, variant: nn.Module, its_images: Tensor, tmp_path: Path
    ) -> None:
        model = quantized(variant, its_images)
        again = igq.load(igq.save(model, tmp_path / "artifact")).model
        assert torch.equal(again(its_images), model(its_images))


@ONE_OF_EACH
def test_sensitivity_is_the_kl_of_the_whole_model(make: Make, noise_for: Noise, name: str) -> None:
    model = make(name)
    images = noise_for(model)
    candidates = igq.fit(igq.observe(model, images, FITTED), (2,), bits=3)
    found = igq.sensitivity(model, candidates, images)
    for layer in igq.grouped(igq.layers(model))[::5]:
        alone = assemble(model, {layer.name: candidates.quantizers[layer.name][2]}, {})
        expected = igq.evaluate(alone, images, reference=model).kl
        assert found[layer.name][groups(2)] == pytest.approx(expected, rel=1e-2, abs=1e-5)


def test_what_timm_s_names_and_arguments_do_not_tell_is_not_saved(
    make: Make, noise_for: Noise, tmp_path: Path
) -> None:
    model = make("eva-02")
    images = noise_for(model)
    model.blocks[0].attn.rotate_half = True  # no module shows it
    with pytest.raises(ArtifactError, match="the model must be what timm makes from its name"):
        igq.save(quantized(model, images), tmp_path / "artifact")


class TestSwin:
    def test_blocks_and_merging_are_listed_in_the_order_of_the_forward_pass(
        self, make: Make
    ) -> None:
        attention = [f"attn.{part}" for part in ("qkv", "q", "k", "softmax", "v", "proj")]
        block = [*attention, "mlp.fc1", "mlp.fc2"]
        assert [layer.name for layer in igq.layers(make("swin"))] == [
            "patch_embed.proj",
            *(f"layers.0.blocks.{j}.{part}" for j in range(2) for part in block),
            "layers.1.downsample.reduction",
            *(f"layers.1.blocks.{j}.{part}" for j in range(2) for part in block),
            "head.fc",
        ]

    def test_patch_merging_is_grouped(self, make: Make) -> None:
        names = [layer.name for layer in igq.grouped(igq.layers(make("swin")))]
        assert "layers.1.downsample.reduction" in names

    def test_bops_of_a_stage_in_closed_form(self, make: Make) -> None:
        # 16 x 16 images in patches of 2 x 2: 64 tokens of 12 channels, 3 heads of 4 channels, in
        # 4 windows of 16 tokens, and 2 blocks of it.
        tokens, keys, channels, heads, width = 64, 16, 12, 3, 4
        listed = [layer for layer in igq.layers(make("swin")) if layer.name.startswith("layers.0.")]
        weights, operands, number = 4 * 3, 3 * 3, 5
        products = tokens * channels * (3 * channels + channels + 4 * channels)  # qkv, proj, fc1
        products += tokens * 4 * channels * channels  # fc2
        attention = 2 * heads * tokens * keys * width
        ranges = 3 * 32 * 2 * heads * tokens * width + 32 * heads * tokens * keys  # and scaling
        rows_sums = 32 * (heads * tokens * keys + 3 * heads * tokens * width)
        expected = 2 * (products * weights + attention * operands + ranges + rows_sums)
        table = bops_of(listed, (1, number), (4, 3), FITTED)
        assert table.of(igq.uniform(listed, 1)) == expected

        shapes = [(12, 36), (12, 12), (12, 48), (48, 12)]
        linear = sum(
            32 * (2 * tokens * c + 16 * c * number + (number - 1) * tokens * d) for c, d in shapes
        )
        rows = heads * tokens
        softmax = 32 * (rows * keys + 4 * rows * number)
        assert table.of(igq.uniform(listed, number)) == expected + 2 * (linear + softmax)

    def test_tokens_that_pad_windows_are_counted_where_they_are_multiplied(
        self, make: Make
    ) -> None:
        # 12 x 14 images in patches of 2 x 2: 6 x 7 tokens, and 2 x 2 windows of 4 x 4.
        listed = {layer.name: layer for layer in igq.layers(make("swin-that-pads"))}
        assert listed["layers.0.blocks.0.attn.qkv"].tokens == 4 * 16
        assert listed["layers.0.blocks.0.attn.softmax"].tokens == 3 * 4 * 16
        assert listed["layers.0.blocks.0.attn.softmax"].channels == 16
        assert listed["layers.0.blocks.0.mlp.fc1"].tokens == 6 * 7
        assert listed["layers.1.downsample.reduction"].tokens == 3 * 4

    def test_swin_tiny_has_as_many_macs_as_published(self) -> None:
        with torch.device("meta"):
            swin = igq.create("swin_tiny_patch4_window7_224")
        macs = sum(layer.tokens * layer.channels * layer.outputs for layer in igq.layers(swin))
        assert macs / 1e9 == pytest.approx(4.5, abs=0.05)

    @pytest.mark.parametrize(
        ("end", "axes"), [("attn.qkv", (0, 1)), ("attn.proj", (0, 1)), ("mlp.fc1", (0, 1))]
    )
    def test_a_channel_s_range_is_that_of_all_windows_of_an_image(
        self, make: Make, noise_for: Noise, end: str, axes: tuple[int, ...]
    ) -> None:
        model = make("swin")
        images = noise_for(model)
        name = f"layers.0.blocks.1.{end}"
        seen = []
        model.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        ranges = igq.observe(model, images, FITTED)[name]
        for image, expected in zip(images, ranges, strict=True):
            model(image[None])
            x = seen.pop()
            torch.testing.assert_close(x.amin(axes), expected[:, 0])
            torch.testing.assert_close(x.amax(axes), expected[:, 1])

    def test_ranges_are_those_of_an_image_and_not_of_a_window(
        self, make: Make, noise_for: Noise
    ) -> None:
        model = make("swin")
        ranges = observed(model, noise_for(model))
        slices = {"q": 3 * 64, "k": 3 * 64, "softmax": 3 * 64, "v": 3 * 4}
        for operand, expected in slices.items():
            assert ranges[f"layers.0.blocks.1.attn.{operand}"].shape == (3, expected, 2)

    def test_its_stages_are_timm_s(self, make: Make) -> None:
        assert len(stages(make("swin-that-pads"))) == 1 + 3 + 1


class TestDistilled:
    def test_both_heads_are_listed(self, make: Make) -> None:
        *_, head, head_dist = igq.layers(make("distilled"))
        assert (head.name, head_dist.name) == ("head", "head_dist")
        assert head.kind is head_dist.kind is Kind.HEAD

    def test_its_token_is_counted(self, make: Make) -> None:
        listed = {layer.name: layer for layer in igq.layers(make("distilled"))}
        assert listed["blocks.0.attn.qkv"].tokens == 16 + 2


class TestEva:
    def test_queries_are_quantized_after_their_rotation(self, make: Make, noise_for: Noise) -> None:
        model = make("eva-02")
        images = noise_for(model)
        turned = observed(model, images)["blocks.0.attn.q"]
        model.rope = None
        straight = observed(model, images)["blocks.0.attn.q"]
        assert not torch.allclose(turned, straight, atol=1e-2)

    def test_keys_that_heads_share_are_quantized_once(self, make: Make) -> None:
        listed = {layer.name: layer for layer in igq.layers(make("rope-shared-keys"))}
        slices = {
            part: num_slices(listed[f"blocks.1.attn.{part}"]) for part in ("q", "k", "softmax", "v")
        }
        tokens = listed["blocks.1.attn.q_proj"].tokens
        assert slices == {"q": 3 * tokens, "k": tokens, "softmax": 3 * tokens, "v": 4}

    def test_a_split_projection_is_a_layer_each(self, make: Make) -> None:
        kinds = Counter(
            layer.name.rpartition(".")[2] for layer in igq.grouped(igq.layers(make("eva-02-split")))
        )
        linear = ("q_proj", "k_proj", "v_proj", "proj", "fc1_g", "fc1_x", "fc2")
        assert kinds == dict.fromkeys((*linear, "softmax"), 2)
