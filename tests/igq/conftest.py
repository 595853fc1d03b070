"""A tiny vision transformer, and what calibrating it gives."""

from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from hypothesis import settings
from torch import Tensor, nn

import igq
from tests.igq.variants import its_images, make, noise_for, variant
from tests.makers import FITTED
from tests.tiny import TINY

__all__ = ["its_images", "make", "noise_for", "variant"]  # fixtures, for every room

# The same examples in every run; no deadline, for CI machines are noisy.
settings.register_profile("igq", deadline=None, derandomize=True)
settings.load_profile("igq")

NUM_GROUPS = (1, 2, 4)


def make_tiny_vit(**arguments: object) -> nn.Module:
    """A ViT whose random weights are wide enough for predictions to differ between images."""
    vit = timm.create_model("vit_tiny_patch16_224", **(TINY | arguments)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return vit


@pytest.fixture
def make_vit() -> Callable[..., nn.Module]:
    return make_tiny_vit


@pytest.fixture(scope="session")
def vit() -> Iterator[nn.Module]:
    """Shared by all tests, which are promised that none of them changes it."""
    model = make_tiny_vit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield model
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def ranges(vit: nn.Module, images: Tensor) -> igq.Ranges:
    return igq.observe(vit, images, FITTED)


@pytest.fixture(scope="session")
def candidates(ranges: igq.Ranges) -> igq.Candidates:
    return igq.fit(ranges, NUM_GROUPS, bits=4)


@pytest.fixture(scope="session")
def quantized(vit: nn.Module, candidates: igq.Candidates) -> nn.Module:
    """W4A4, 2 groups in every layer."""
    allocation = igq.uniform(candidates.layers, 2)
    return igq.quantize(vit, candidates.select(allocation), weight_bits=4)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA GPU")
    return torch.device(request.param)
