"""Every way of building a vision transformer that is supported, as small as can be."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from tests.tiny import TINY

SWIN = {
    "img_size": 16,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 12,
    "depths": (2, 2),
    "num_heads": (3, 6),
    "window_size": 4,
}
VIT = "vit_tiny_patch16_224"
SWIN_NAME = "swin_tiny_patch4_window7_224"
BEIT = "beit_base_patch16_224"

SUPPORTED = {
    "plain": (VIT, {}),
    "qk-norm": (VIT, {"qk_norm": True}),
    "layer-scale": (VIT, {"init_values": 0.1}),
    "registers": (VIT, {"reg_tokens": 2}),
    "average-pool": (VIT, {"global_pool": "avg"}),
    "no-class-token": (VIT, {"class_token": False, "global_pool": "avg"}),
    "class-token-without-position": (VIT, {"no_embed_class": True}),
    "no-qkv-bias": (VIT, {"qkv_bias": False}),
    "no-proj-bias": (VIT, {"proj_bias": False}),
    "pre-norm": (VIT, {"pre_norm": True}),
    "norm-in-attention": (VIT, {"scale_attn_norm": True}),
    "norm-in-mlp": (VIT, {"scale_mlp_norm": True}),
    "image-not-square": (VIT, {"img_size": (4, 8)}),
    "image-of-any-size": (VIT, {"dynamic_img_size": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "deit-3": ("deit3_small_patch16_224", {}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov2-swiglu-packed": ("vit_giant_patch14_reg4_dinov2", {}),
    "aimv2-swiglu": ("aimv2_large_patch14_224", {}),
    "beit-3": ("beit3_base_patch16_224", {}),
    "norm-after": ("vit_base_patch16_rpn_224", {}),
    "swin": (SWIN_NAME, SWIN),
    "swin-that-pads": (
        SWIN_NAME,
        SWIN | {"img_size": (12, 14), "depths": (2, 1, 2), "num_heads": (3, 3, 3)},
    ),
    "swin-that-always-shifts": (SWIN_NAME, SWIN | {"img_size": 12, "always_partition": True}),
    "beit": (BEIT, {}),
    "beit-shared-bias": (BEIT, {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False}),
    "beit-both-biases": (BEIT, {"use_shared_rel_pos_bias": True, "swiglu_mlp": True}),
    "beit-no-bias": (BEIT, {"use_rel_pos_bias": False, "qkv_bias": False}),
    "eva": ("eva_giant_patch14_224", {}),
    "eva-02": ("eva02_tiny_patch14_224", {}),
    "eva-02-split": ("eva02_base_patch14_224", {}),
    "eva-02-clip": ("eva02_base_patch16_clip_224", {}),
    "eva-02-norm-after": ("eva02_enormous_patch14_clip_224", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "rope-mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "rope-shared-keys": ("vit_base_patch16_sapiens2", {"num_kv_heads": (3, 1)}),
}


def make_model(name: str, arguments: dict[str, object]) -> nn.Module:
    """A model of noise: every bias, table and scale of it matters."""
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    sizes = {} if name.startswith("swin") else TINY
    model = timm.create_model(name, **(sizes | arguments)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def make_noise(model: nn.Module, images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(images, 1, *model.patch_embed.img_size, generator=generator)


FAST = {"plain", "swin", "beit", "eva-02"}
"""One of each family; the others are built in slow tests."""


@pytest.fixture(
    params=[
        pytest.param(made, id=name, marks=[] if name in FAST else pytest.mark.slow)
        for name, made in SUPPORTED.items()
    ]
)
def variant(request: pytest.FixtureRequest) -> nn.Module:
    return make_model(*request.param)


@pytest.fixture
def its_images(variant: nn.Module) -> Tensor:
    return make_noise(variant)


@pytest.fixture
def make() -> Callable[..., nn.Module]:
    """A tiny model by the name of its variant."""

    def made(variant: str, **arguments: object) -> nn.Module:
        name, its_own = SUPPORTED[variant]
        return make_model(name, its_own | arguments)

    return made


@pytest.fixture
def noise_for() -> Callable[..., Tensor]:
    return make_noise
