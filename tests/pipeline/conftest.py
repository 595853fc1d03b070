"""A study that takes a second: one block of width 12 with random weights, on a few digits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import search_spaces
from igq import Allocation, Layer, Limits, Observation, Options, Scheme, Unit
from igq.costs import Number
from igq.costs.bops import bops_table
from igq.layer import Kind
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request
from pipeline.study.trials import Origin, Proposal, State, Trial
from tests import tiny

TINY = tiny.TINY | {"depth": 1}
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
    Layer("patches", Kind.EMBEDDING, tokens=16, channels=32, outputs=32, bits=8),
    Layer("qkv", Kind.LINEAR, tokens=16, channels=32, outputs=96),
    Layer("softmax", Kind.SOFTMAX, tokens=48, channels=16, outputs=16),
    Layer("fc1", Kind.LINEAR, tokens=16, channels=32, outputs=64),
    Layer("fc2", Kind.LINEAR, tokens=16, channels=64, outputs=32),
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
    costs: Mapping[Unit, Number] | None = None,
    logit_mses: tuple[float, ...] = (),
    **more: Any,
) -> Trial:
    proposal = Proposal(number, origin, Allocation.of({"fc": 2}), costs or {Unit.BOPS: bops})
    return Trial(proposal, state, Observation(kls, logit_mses), **more)


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
def limits() -> Limits:
    """`layers` with 1, 2, 4 or 8 groups, within the BOPs of 2 groups everywhere."""
    options = Options((4,), (4,), (1, 2, 4, 8))
    return bops_table(LAYERS, Scheme.PAPER, options).limit(uniform=2)


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

    Without rivals and figures, which take several times as long as the study itself.
    """

    def make(out: Path | None = None, space: dict[str, Any] | None = None, **more: Any) -> Request:
        loaded = search_spaces.load(write_space(tmp_path / "space", **(space or {})))
        short = {"rivals": False, "figures": False}
        return Request(loaded, out or tmp_path / "study", **(short | more))

    return make


@pytest.fixture(scope="session")
def recorded_study(
    tmp_path_factory: pytest.TempPathFactory, write_space: Callable[..., Path]
) -> Path:
    """The folder of a study of the tiny space that has its MLflow store within it."""
    import pipeline

    folder = tmp_path_factory.mktemp("recorded")
    space = write_space(folder / "space", validation_images=60)
    pipeline.search(space, folder / "study", display=SilentDisplay(), rivals=False)
    return folder / "study"


@pytest.fixture
def display() -> Display:
    """A display that nobody sees."""
    return SilentDisplay()
