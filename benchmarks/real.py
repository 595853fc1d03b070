"""Models and images for measuring, and a line that names the machine.

Real weights and images lie in the folder that `IGQ_ASSETS` names.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import igq
import search_spaces
from igq import Candidates, Scheme
from igq.evaluation import accuracy, log_probabilities
from pipeline.data import Preprocessing, draw, open_source

ASSETS = Path(os.environ.get("IGQ_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
BATCH = 16
CALIBRATION_IMAGES = 32
DIGITS = "digits"
"""The name of the demo's model, whose weights and images the project has."""
SCHEMES = {"best": Scheme.BEST, "paper": Scheme.PAPER}


@dataclass(frozen=True, eq=False)
class Bench:
    """A full-precision model with calibration and evaluation images."""

    model: nn.Module
    calibration: Float[Tensor, "drawn channels height width"]
    images: Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"]
    reference: Float[Tensor, "images classes"]

    def candidates(self, scheme: Scheme, num_groups: Sequence[int], bits: int) -> Candidates:
        """Return candidates from the calibration images."""
        return igq.fit(igq.observe(self.model, self.calibration, scheme), num_groups, bits)

    def row(self, name: str, quantized: nn.Module) -> str:
        """Return KL, and top-1 as a share of full precision's, as a row of a Markdown table."""
        score = igq.evaluate(quantized, self.images, self.reference, self.labels)
        kept = (score.top1 or 0.0) / accuracy(self.reference, self.labels)
        return f"| {name} | {score.kl:.3f} | {kept:.3f} |"


def arguments(description: str | None, images: int) -> argparse.Namespace:
    """Return the options that every benchmark on images has, as given."""
    return arguments_for(description, images).parse_args()


def arguments_for(description: str | None, images: int) -> argparse.ArgumentParser:
    """Return the parser of the options that every benchmark on images has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224", help=f"or {DIGITS}")
    parser.add_argument("--images", type=int, default=images, help="evaluation images")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--scheme", choices=SCHEMES, default="best")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration images")
    return parser


def load(name: str) -> nn.Module:
    """Return a model with real weights."""
    if name == DIGITS:
        model = search_spaces.load("demo").model
        return igq.create(model.name, model.arguments, search_spaces.load("demo").weights)
    return igq.create(name, {}, ASSETS / "weights" / f"{name}.safetensors")


def bench(options: argparse.Namespace) -> Bench:
    """Load the model and draw its images: of nips17, calibrated on train1000."""
    model = load(options.model)
    preprocessing = Preprocessing.of(model)
    own = {"shown": DIGITS, "calibration": DIGITS}
    folders = {"shown": "nips17", "calibration": "train1000"}
    names = {use: str(ASSETS / "images" / folder) for use, folder in folders.items()}
    chosen = own if options.model == DIGITS else names
    sources = {name: open_source(name, preprocessing) for name in set(chosen.values())}

    def drawn(use: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
        images = draw({use: (sources[chosen[use]], count, count)}, seed)[use]
        assert images.labels is not None  # all these sets have classes
        return images.loaded(), images.labels

    images, labels = drawn("shown", options.images, 0)
    calibration, _ = drawn("calibration", CALIBRATION_IMAGES, options.seed)
    return Bench(model, calibration, images, labels, log_probabilities(model, images))


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return a model's logits of all images, a batch at a time."""
    return torch.cat([model(batch) for batch in images.split(BATCH)])


def machine() -> str:
    """Return the machine in a line."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
