"""Weights under other names, or of another size, give the predictions that they gave before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igq import WeightsError
from igq.vit import create
from tests.tiny import TINY

NAME = "vit_tiny_patch16_224"
WORDS = (
    ("attn.proj.", "attention.output.dense."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)
DINO_WORDS = (
    ("attn.proj.", "attention.output.dense."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    *((f"{name}.", f"{name}.") for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")),
)
STEM = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


def as_hugging_face(
    tensors: dict[str, Tensor], prefix: str = "vit.", words: tuple[tuple[str, str], ...] = WORDS
) -> dict[str, Tensor]:
    """Rename timm's tensors as ViTForImageClassification has them."""
    found = {}
    for name, tensor in tensors.items():
        if name in STEM:
            found[prefix + STEM[name]] = tensor
        elif name.startswith("head."):
            found[name.replace("head.", "classifier.")] = tensor
        else:
            _, block, rest = name.split(".", 2)
            layer = f"{prefix}encoder.layer.{block}."
            if rest.startswith("attn.qkv."):
                kind = rest.rpartition(".")[2]
                for operand, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    found[f"{layer}attention.attention.{operand}.{kind}"] = part.clone()
                continue
            ours, theirs = next(pair for pair in words if rest.startswith(pair[0]))
            found[layer + rest.replace(ours, theirs)] = tensor
    return found


Load = Callable[..., nn.Module]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def load(tmp_path: Path, told: list[str]) -> Load:
    """Save a checkpoint and create a model with it."""

    def made(content: Any, name: str = NAME, **changed: Any) -> nn.Module:
        file = tmp_path / "weights.pth"
        torch.save(content, file)
        return create(name, TINY | changed, file, tell=told.append)

    return made


def tiny(name: str = NAME, **changed: Any) -> nn.Module:
    return timm.create_model(name, **(TINY | changed)).eval()


class TestNames:
    def test_hugging_face_s_vit(
        self, load: Load, vit: nn.Module, images: Tensor, told: list[str]
    ) -> None:
        loaded = load(as_hugging_face(vit.state_dict()))
        assert torch.equal(loaded(images), vit(images))
        assert [line.partition(": ")[2] for line in told] == [
            "names are translated from Hugging Face's."
        ]

    def test_hugging_face_s_dinov2(self, load: Load, images: Tensor) -> None:
        dino = tiny(init_values=1.0)
        for parameter in dino.parameters():
            parameter.data += 0.1 * torch.rand_like(parameter)
        tensors = as_hugging_face(dino.state_dict(), "dinov2.", DINO_WORDS)
        tensors["dinov2.embeddings.mask_token"] = torch.zeros(1, 12)
        assert torch.equal(load(tensors, init_values=1.0)(images), dino(images))

    def test_another_model_of_hugging_face_s_is_refused_by_a_name(
        self, load: Load, vit: nn.Module
    ) -> None:
        tensors = as_hugging_face(vit.state_dict(), "beit.")
        tensors["beit.encoder.layer.0.lambda_1"] = torch.ones(12)
        with pytest.raises(
            WeightsError, match=r"but this one has beit\.encoder\.layer\.0\.lambda_1"
        ):
            load(tensors)

    @pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", "encoder."])
    def test_a_prefix_before_the_embedding_is_taken_off(
        self, load: Load, vit: nn.Module, images: Tensor, prefix: str
    ) -> None:
        tensors = {prefix + name: tensor for name, tensor in vit.state_dict().items()}
        assert torch.equal(load(tensors)(images), vit(images))

    def test_deit_iii_s_gamma(self, load: Load, images: Tensor, told: list[str]) -> None:
        deit = tiny("deit3_small_patch16_224")
        tensors = {
            name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): tensor
            for name, tensor in deit.state_dict().items()
        }
        loaded = load(tensors, "deit3_small_patch16_224")
        assert torch.equal(loaded(images), deit(images))
        assert told[-1].endswith(": 4 tensors, such as blocks.0.ls1.gamma, are renamed.")

    @pytest.mark.parametrize(
        "spare", ["mask_token", "pre_logits.fc.weight", "total_ops", "blocks.0.total_params"]
    )
    def test_tensors_that_only_training_needs_are_left_out(
        self, load: Load, vit: nn.Module, images: Tensor, told: list[str], spare: str
    ) -> None:
        loaded = load({**vit.state_dict(), spare: torch.zeros(1, 12)})
        assert torch.equal(loaded(images), vit(images))
        assert told[-1].endswith(f": {spare} is left out, as the model has no such part.")

    @pytest.mark.slow
    def test_swin_s_buffers_are_left_out(self, tmp_path: Path) -> None:
        name = "swin_tiny_patch4_window7_224"
        swin = timm.create_model(name, img_size=64, num_classes=5).eval()
        tensors = dict(swin.state_dict())
        tensors["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
        images = torch.rand(1, 3, 64, 64)
        file = tmp_path / "swin.pth"
        torch.save(tensors, file)
        loaded = create(name, {"img_size": 64, "num_classes": 5}, file)
        assert torch.equal(loaded(images), swin(images))


class TestBesideAWrappedModel:
    @pytest.mark.parametrize(
        ("prefix", "spare", "shape"),
        [("model.", "criterion.weight", (10,)), ("module.", "n_averaged", ())],
        ids=["the loss of a Lightning module", "the counter of an averaged model"],
    )
    def test_tensors_are_left_out_and_said(
        self,
        load: Load,
        vit: nn.Module,
        images: Tensor,
        told: list[str],
        prefix: str,
        spare: str,
        shape: tuple[int, ...],
    ) -> None:
        wrapped = {prefix + name: tensor for name, tensor in vit.state_dict().items()}
        loaded = load({**wrapped, spare: torch.ones(shape)})
        assert torch.equal(loaded(images), vit(images))
        assert told[-1].endswith(f": {spare} lies outside of the model.")

    def test_a_classifier_is_part_of_the_model(
        self, load: Load, vit: nn.Module, images: Tensor
    ) -> None:
        tensors = {
            name if name.startswith("head.") else f"module.{name}": tensor
            for name, tensor in vit.state_dict().items()
        }
        assert torch.equal(load(tensors)(images), vit(images))

    def test_a_model_without_a_wrapper_must_fit_as_it_is(self, load: Load, vit: nn.Module) -> None:
        with pytest.raises(WeightsError, match=r"but the model has no criterion\.weight\.$"):
            load({**vit.state_dict(), "criterion.weight": torch.ones(10)})


class TestSizes:
    def test_positions_are_resampled_for_another_image_size(
        self, load: Load, vit: nn.Module, told: list[str]
    ) -> None:
        loaded = load(vit.state_dict(), img_size=12)
        positions = vit.state_dict()["pos_embed"]
        grid = positions[:, 1:].reshape(1, 4, 4, 12).permute(0, 3, 1, 2)
        larger = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
        expected = torch.cat([positions[:, :1], larger.flatten(2).transpose(1, 2)], dim=1)
        torch.testing.assert_close(loaded.state_dict()["pos_embed"], expected)
        assert told[-1].endswith(": pos_embed is resampled from [1, 17, 12] to [1, 37, 12].")

    def test_the_same_size_is_not_resampled(
        self, load: Load, vit: nn.Module, images: Tensor
    ) -> None:
        spare = {**vit.state_dict(), "mask_token": torch.zeros(1, 12)}
        assert torch.equal(load(spare)(images), vit(images))

    def test_colours_are_summed_for_grey_images(self, load: Load, told: list[str]) -> None:
        colour = tiny(in_chans=3)
        grey = torch.rand(2, 1, 8, 8)
        loaded = load(colour.state_dict())
        torch.testing.assert_close(loaded(grey), colour(grey.expand(2, 3, 8, 8)))
        assert told[-1].endswith(
            ": patch_embed.proj.weight is adapted from [12, 3, 2, 2] to [12, 1, 2, 2]."
        )

    def test_half_precision_is_read_as_float32(
        self, load: Load, vit: nn.Module, images: Tensor
    ) -> None:
        half = {name: tensor.bfloat16() for name, tensor in vit.state_dict().items()}
        loaded = load(half)
        assert loaded(images).dtype == torch.float32


class TestReadOff:
    def test_the_number_of_classes(self, tmp_path: Path, told: list[str]) -> None:
        changed = {name: value for name, value in TINY.items() if name != "num_classes"}
        other = tiny(num_classes=7)
        file = tmp_path / "weights.pth"
        torch.save(other.state_dict(), file)
        loaded = create(NAME, changed, file, tell=told.append)
        assert loaded.num_classes == 7
        assert told == [f"{file}: the model is made with num_classes: 7, as its weights are."]

    def test_a_normalisation_after_pooling(self, load: Load, images: Tensor) -> None:
        pooled = tiny(global_pool="avg")
        loaded = load(pooled.state_dict())
        assert torch.equal(loaded(images), pooled(images))


class TestLikelyCauses:
    CASES = (
        (
            {"conv_proj.weight": torch.ones(1)},
            {},
            " Likely they are those of torchvision's VisionTransformer, and the model is timm's "
            "VisionTransformer: take timm's weights of it.",
        ),
        (
            {"layer1.0.conv1.weight": torch.ones(1)},
            {},
            "those of a ResNet, and the model is timm's VisionTransformer.",
        ),
        ({}, {"num_classes": 7}, "Likely they are of 7 classes: give --num-classes 7."),
        ({}, {"embed_dim": 24}, "Likely they are of a model of width 24, and this one has 12"),
        (
            {},
            {"reg_tokens": 4},
            "Likely they are of a model with register tokens: give reg_tokens: 4.",
        ),
        ({}, {"depth": 3}, "Likely they are of a model of 3 blocks, and this one has 2."),
    )

    @pytest.mark.parametrize(("added", "changed", "cause"), CASES)
    def test_is_named_after_the_first_tensor(
        self, load: Load, added: dict[str, Tensor], changed: dict[str, Any], cause: str
    ) -> None:
        tensors = added or tiny(**changed).state_dict()
        with pytest.raises(WeightsError) as raised:
            load(tensors)
        assert cause in str(raised.value)

    def test_a_model_without_a_classifier(self, load: Load, vit: nn.Module) -> None:
        headless = {n: t for n, t in vit.state_dict().items() if not n.startswith("head.")}
        with pytest.raises(WeightsError) as raised:
            load(headless)
        assert "lacks head.bias. Likely they were pretrained without a" in str(raised.value)
