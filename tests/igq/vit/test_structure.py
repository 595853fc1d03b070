"""Which layers a model has, and its forward pass in steps."""

from collections import Counter, OrderedDict
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.layers import Attention, AttentionRope
from timm.models import beit, eva
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

import igq
from igq import Kind, Layer, UnsupportedModelError
from igq.grouping import SliceQuantizer, grouping_of
from igq.quantized import assemble
from igq.vit import stage_of, stages
from tests.makers import FITTED

Make = Callable[..., nn.Module]
ATTENTIONS = (Attention, AttentionRope, WindowAttention, beit.Attention, eva.EvaAttention)


class TestLayers:
    def test_a_block_s_layers_are_in_the_order_of_the_forward_pass(self, vit: nn.Module) -> None:
        first, *blocks, last = (layer.name for layer in igq.layers(vit))
        assert (first, last) == ("patch_embed.proj", "head")
        attention = [f"attn.{part}" for part in ("qkv", "q", "k", "softmax", "v", "proj")]
        parts = [*attention, "mlp.fc1", "mlp.fc2"]
        assert blocks == [f"blocks.{i}.{part}" for i in range(2) for part in parts]

    def test_every_product_and_softmax_is_listed_exactly_once(self, variant: nn.Module) -> None:
        listed = Counter(layer.name for layer in igq.layers(variant))
        products = [n for n, m in variant.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        attentions = [n for n, m in variant.named_modules() if isinstance(m, ATTENTIONS)]
        operands = [f"{n}.{operand}" for n in attentions for operand in ("q", "k", "softmax", "v")]
        assert listed == Counter(products + operands)

    def test_linear_inputs_and_softmax_maps_are_grouped_and_nothing_else(
        self, vit: nn.Module
    ) -> None:
        names = [layer.name for layer in igq.grouped(igq.layers(vit))]
        ends = ("attn.qkv", "attn.softmax", "attn.proj", "mlp.fc1", "mlp.fc2")
        assert names == [f"blocks.{i}.{end}" for i in range(2) for end in ends]

    def test_shapes_are_those_of_the_products(self, vit: nn.Module) -> None:
        # 8 x 8 images in patches of 2 x 2: 16 tokens and the class token, 3 heads of width 4.
        listed = {layer.name.removeprefix("blocks.0."): layer for layer in igq.layers(vit)}

        def expect(name: str, kind: Kind, *shape: int) -> None:
            layer = listed[name]
            assert (layer.kind, layer.tokens, layer.channels, layer.outputs) == (kind, *shape)

        expect("patch_embed.proj", Kind.EMBEDDING, 16, 4, 12)
        expect("attn.qkv", Kind.LINEAR, 17, 12, 36)
        expect("attn.q", Kind.QUERY, 51, 4, 17)
        expect("attn.k", Kind.KEY, 51, 4, 0)
        expect("attn.softmax", Kind.SOFTMAX, 51, 17, 4)
        expect("attn.v", Kind.VALUE, 51, 4, 0)
        expect("attn.proj", Kind.LINEAR, 17, 12, 12)
        expect("mlp.fc1", Kind.LINEAR, 17, 12, 48)
        expect("mlp.fc2", Kind.LINEAR, 17, 48, 12)
        expect("head", Kind.HEAD, 1, 12, 10)

    def test_only_the_patch_embedding_has_bits_of_its_own(self, vit: nn.Module) -> None:
        bits = {layer.name: layer.bits for layer in igq.layers(vit) if layer.bits is not None}
        assert bits == {"patch_embed.proj": 8}

    def test_a_quantized_model_has_the_same_layers(
        self, vit: nn.Module, quantized: nn.Module
    ) -> None:
        assert igq.layers(quantized) == igq.layers(vit)

    def test_deit_tiny_has_48_linear_inputs_and_12_softmax_maps(self) -> None:
        with torch.device("meta"):
            deit = timm.create_model("deit_tiny_patch16_224")
        kinds = Counter(layer.kind for layer in igq.layers(deit))
        assert kinds[Kind.LINEAR] == 48
        assert kinds[Kind.SOFTMAX] == 12


NO_CLASSES = (
    "a model must be a classifier, but {} has no classes: give it some with the argument "
    "`num_classes`, or take a version of it that was trained on them."
)


class TestUnsupported:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("resnet18", "ResNet"),
            ("swinv2_tiny_window8_256", "SwinTransformerV2"),
            ("cait_xxs24_224", "Cait"),
        ],
    )
    def test_models_of_no_family(self, name: str, kind: str) -> None:
        with torch.device("meta"):
            model = timm.create_model(name)
        with pytest.raises(UnsupportedModelError) as raised:
            igq.layers(model)
        assert str(raised.value) == (
            "the model must be a timm VisionTransformer, VisionTransformerDistilled, "
            f"SwinTransformer, Beit or Eva, but got a {kind}."
        )

    @pytest.mark.parametrize(
        ("variant", "arguments", "message"),
        [
            ("plain", {"num_classes": 0}, NO_CLASSES.format("vit_tiny_patch16_224")),
            (
                "plain",
                {"global_pool": "map"},
                "attn_pool must be None, but is a AttentionPoolLatent.",
            ),
            (
                "plain",
                {"attn_layer": "diff", "num_heads": 1},
                "blocks.0.attn must be a Attention, but is a DiffAttention.",
            ),
            (
                "plain",
                {"global_pool": ""},
                "`global_pool` must leave one token for the head, but is ''.",
            ),
            (
                "swin",
                {"strict_img_size": False},
                "`strict_img_size` must be True for a Swin, as the windows of an image are told "
                "apart by their number, but is False.",
            ),
            ("swin", {"num_classes": 0}, NO_CLASSES.format("swin_tiny_patch4_window7_224")),
            ("beit", {"num_classes": 0}, NO_CLASSES.format("beit_base_patch16_224")),
            (
                "eva",
                {"global_pool": "map"},
                "attn_pool must be None, but is a AttentionPoolLatent.",
            ),
        ],
        ids=[
            "no-head",
            "attention-pool",
            "differential-attention",
            "no-pool",
            "swin-of-any-size",
            "swin-no-head",
            "beit-no-head",
            "eva-attention-pool",
        ],
    )
    def test_parts_that_would_be_missed_are_named(
        self, make: Make, variant: str, arguments: dict[str, object], message: str
    ) -> None:
        with pytest.raises(UnsupportedModelError) as raised:
            igq.layers(make(variant, **arguments))
        assert str(raised.value) == message

    def test_a_linear_layer_that_is_nowhere_expected_is_named(self, make: Make) -> None:
        model = make("swin")
        model.layers[1].blocks[0].norm1 = nn.Sequential(nn.Linear(24, 24))
        with pytest.raises(UnsupportedModelError) as raised:
            igq.layers(model)
        assert str(raised.value) == (
            "every linear and convolution layer must be one that can be quantized, "
            "but layers.1.blocks.0.norm1.0 is not."
        )

    def test_a_gate_in_an_attention_is_named(self, make_vit: Make) -> None:
        model = make_vit()
        model.blocks[1].attn = Attention(12, num_heads=3, gated=True)
        message = r"^blocks\.1\.attn\.gate must be None, but is a Linear\.$"
        with pytest.raises(UnsupportedModelError, match=message):
            igq.layers(model)

    def test_parallel_blocks_are_named(self) -> None:
        with torch.device("meta"):
            model = timm.create_model("vit_small_patch16_36x1_224")
            parallel = timm.create_model("vit_small_patch16_18x2_224")
        assert igq.layers(model)
        with pytest.raises(
            UnsupportedModelError, match=r"^blocks\.0 must be a Block or ResPostBlock,"
        ):
            igq.layers(parallel)

    @pytest.mark.parametrize(
        "act",
        [
            lambda vit, images: igq.observe(vit, images),
            lambda vit, images: igq.quantize(vit, {}, weight_bits=4),
            lambda vit, images: igq.layers(vit),
        ],
        ids=["observe", "quantize", "layers"],
    )
    def test_every_door_refuses_them(
        self, images: Tensor, act: Callable[[nn.Module, Tensor], object]
    ) -> None:
        with pytest.raises(UnsupportedModelError, match="but got a Sequential"):
            act(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images)


class TestStages:
    def test_one_after_the_other_they_are_the_forward_pass(
        self, variant: nn.Module, its_images: Tensor
    ) -> None:
        x = its_images
        for stage in stages(variant):
            x = stage(x)
        assert torch.equal(x, variant(its_images))

    def test_so_are_those_of_a_quantized_model(self, quantized: nn.Module, images: Tensor) -> None:
        x = images
        for stage in stages(quantized):
            x = stage(x)
        assert torch.equal(x, quantized(images))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["plain", "distilled", "swin", "beit", "eva-02-split"])
    def test_a_layer_is_part_of_the_stage_that_it_names(
        self, make: Make, noise_for: Callable[..., Tensor], name: str
    ) -> None:
        model = make(name)
        images = noise_for(model)
        for layer in igq.layers(model):
            quantizer = SliceQuantizer(2, grouping_of(layer, FITTED))
            harmed = stages(assemble(model, {layer.name: quantizer}, {}))
            plain = stages(assemble(model, {}, {}))
            x = images
            for place, (one, other) in enumerate(zip(harmed, plain, strict=True)):
                differs = not torch.equal(one(x), other(x))
                assert differs == (place == range(len(plain))[stage_of(layer)]), layer.name
                x = other(x)

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("patch_embed.proj", 0),
            ("blocks.0.attn.q", 1),
            ("blocks.11.mlp.fc2", 12),
            ("layers.0.blocks.1.attn.q", 1),
            ("layers.3.downsample.reduction", 4),
            ("head", -1),
            ("head.fc", -1),
        ],
    )
    def test_the_place_of_a_stage_is_read_off_the_name(self, name: str, place: int) -> None:
        layer = Layer(name, Kind.LINEAR, tokens=1, channels=1, outputs=1)
        assert stage_of(layer) == place


class Mine(timm.models.VisionTransformer):
    """A subclass that computes the same."""


class TestTheNearestWay:
    """A model of another kind is refused with the nearest way to one that is supported."""

    @pytest.mark.parametrize(
        ("wrap", "said"),
        [
            (nn.DataParallel, "but got a DataParallel around one; give model.module."),
            (torch.compile, "but got an OptimizedModule around one; give model._orig_mod."),
            (
                lambda vit: Mine(img_size=8, patch_size=2, embed_dim=12, depth=1, num_heads=3),
                "but got a Mine, a subclass of VisionTransformer that may compute otherwise; load "
                "its weights into a model of timm.create_model.",
            ),
            (
                lambda vit: torchvision.models.VisionTransformer(8, 2, 1, 1, 12, 12),
                "but got a VisionTransformer of torchvision; make the model of the same name with "
                "timm.create_model, and fine-tune it or take its pretrained weights.",
            ),
            (
                lambda vit: nn.Sequential(OrderedDict(net=vit)),
                "but got a Sequential around one; give model.net.",
            ),
            (lambda vit: nn.ReLU(), "but got a ReLU."),
        ],
        ids=["parallel", "compiled", "subclass", "torchvision", "wrapped", "other"],
    )
    def test_is_named(
        self, vit: nn.Module, wrap: Callable[[nn.Module], nn.Module], said: str
    ) -> None:
        with pytest.raises(UnsupportedModelError) as raised:
            igq.layers(wrap(vit))
        assert str(raised.value).endswith(said)
