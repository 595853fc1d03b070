"""Every variant of a plain ViT that is supported."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

SUPPORTED = {
    "plain": {},
    "qk-norm": {"qk_norm": True},
    "layer-scale": {"init_values": 0.1},
    "registers": {"reg_tokens": 2},
    "average-pool": {"global_pool": "avg"},
    "no-class-token": {"class_token": False, "global_pool": "avg"},
    "class-token-without-position": {"no_embed_class": True},
    "no-qkv-bias": {"qkv_bias": False},
    "pre-norm": {"pre_norm": True},
    "image-not-square": {"img_size": (4, 8)},
    "image-of-any-size": {"dynamic_img_size": True},
}


@pytest.fixture(params=SUPPORTED.values(), ids=SUPPORTED)
def variant(request: pytest.FixtureRequest, make_vit: Callable[..., nn.Module]) -> nn.Module:
    return make_vit(**request.param)


@pytest.fixture
def its_images(variant: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 1, *variant.patch_embed.img_size, generator=generator)
