"""A study that takes a second: one block of width 12 with random weights, on a few digits."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import search_spaces
from igq import Allocation, BopsTable, Layer, Slices, bops
from pipeline.config import Request
from pipeline.screen import Screen
from pipeline.study import Origin, Proposal, State, Trial

TINY: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 12,
    "depth": 1,
    "num_heads": 3,
}
SPACE: dict[str, Any] = {
    "model": {"name": "vit_tiny_patch16_224", "arguments": TINY},
    "weights": "weights.safetensors",
    "images": "digits",
    "weight_bits": 4,
    "activation_bits": 4,
    "weight_method": "nearest",  # correcting takes longer than the study
    "num_groups": [1, 2, 4],
    "budget": {"uniform": 2},
    "calibration_images": 2,
    "search_images": 8,
    "validation_images": 6,
    "final_images": 4,
    "sensitivity_images": 2,
    "trials": 12,
}
LAYERS = (
    Layer("patches", Slices.WHOLE, tokens=16, channels=32, outputs=32, weighted=True, bits=8),
    Layer("qkv", Slices.CHANNELS, tokens=16, channels=32, outputs=96, weighted=True),
    Layer("softmax", Slices.ROWS, tokens=48, channels=16, outputs=16, weighted=False),
    Layer("fc1", Slices.CHANNELS, tokens=16, channels=32, outputs=64, weighted=True),
    Layer("fc2", Slices.CHANNELS, tokens=16, channels=64, outputs=32, weighted=True),
)


def make_model(seed: int = 0) -> nn.Module:
    """Random weights that are wide enough for predictions to differ between images."""
    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return model


def make_trial(
    number: int = 0,
    kls: tuple[float, ...] = (1.0,),
    bops: int = 100,
    state: State = State.COMPLETE,
    origin: Origin = Origin.SAMPLER,
    **more: Any,
) -> Trial:
    return Trial(Proposal(number, origin, Allocation.of({"fc": 2}), bops), state, kls, **more)


@pytest.fixture
def trial() -> Callable[..., Trial]:
    return make_trial


@pytest.fixture(scope="session")
def model() -> nn.Module:
    return make_model()


@pytest.fixture(scope="session")
def other_model() -> nn.Module:
    """As `model`, with other weights."""
    return make_model(seed=1)


@pytest.fixture(scope="session")
def layers() -> tuple[Layer, ...]:
    """Five layers, four of them grouped."""
    return LAYERS


@pytest.fixture(scope="session")
def table() -> BopsTable:
    """What `layers` cost with 1, 2, 4 or 8 groups."""
    return bops(LAYERS, (1, 2, 4, 8), weight_bits=4, activation_bits=4)


@pytest.fixture(scope="session")
def write_space() -> Callable[..., Path]:
    """Write a tiny search space and its weights into a folder; gives the YAML's path."""

    def write(folder: Path, name: str = "tiny", seed: int = 0, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(make_model(seed).state_dict(), folder / "weights.safetensors")
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(SPACE | changes))
        return path

    return write


@pytest.fixture
def make_request(tmp_path: Path, write_space: Callable[..., Path]) -> Callable[..., Request]:
    """A request for the tiny space, in tmp_path/study unless `out` says otherwise.

    Without rivals, which take several times as long as the study itself.
    """

    def make(out: Path | None = None, space: dict[str, Any] | None = None, **more: Any) -> Request:
        loaded = search_spaces.load(write_space(tmp_path / "space", **(space or {})))
        return Request(loaded, out or tmp_path / "study", **({"rivals": False} | more))

    return make


@pytest.fixture
def screen() -> Screen:
    """A screen that nobody sees."""
    return Screen(Console(file=io.StringIO()))
