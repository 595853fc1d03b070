"""Real weights and images for measuring, and how a benchmark says what it was run on."""

import argparse
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import igq
from igq import Slices
from igq.evaluation import accuracy, log_probabilities
from igq.grouping import Quantizer
from igq.vit import with_slots
from pipeline.data import Preprocessing, draw, open_source

ASSETS = Path(os.environ.get("IGQ_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
CALIBRATION_IMAGES = 32


class Sliced(TypedDict):
    """What `igq.layers` and `igq.observe` are to be told of groups."""

    softmax: Slices
    inputs: Slices


SIDE_BY_SIDE: Sliced = {"softmax": Slices.KEY_GROUPS, "inputs": Slices.TOKEN_GROUPS}
"""As search spaces have it."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A full-precision model with calibration and evaluation images."""

    model: nn.Module
    calibration: Float[Tensor, "drawn channels height width"]
    images: Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"]
    reference: Float[Tensor, "images classes"]

    def row(self, name: str, quantized: nn.Module) -> str:
        """KL, and top-1 kept of full precision's, as a row of a Markdown table."""
        score = igq.evaluate(quantized, self.images, self.reference, self.labels)
        kept = (score.top1 or 0.0) / accuracy(self.reference, self.labels)
        return f"| {name} | {score.kl:.3f} | {kept:.3f} |"


def arguments(description: str, images: int) -> argparse.Namespace:
    """The options that every benchmark on real images has, as given."""
    return arguments_for(description, images).parse_args()


def arguments_for(description: str, images: int) -> argparse.ArgumentParser:
    """The options that every benchmark on real images has."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--images", type=int, default=images, help="of nips17")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the calibration images")
    return parser


def bench(options: argparse.Namespace) -> Bench:
    """Load the model and draw its images."""
    model = igq.create(options.model, {}, ASSETS / "weights" / f"{options.model}.safetensors")
    preprocessing = Preprocessing.of(model)

    def drawn(folder: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
        source = open_source(str(ASSETS / "images" / folder), preprocessing)
        images = draw({folder: (source, count, count)}, seed)[folder]
        assert images.labels is not None  # both sets are in class folders
        return images.values, images.labels

    images, labels = drawn("nips17", options.images, 0)
    calibration, _ = drawn("train1000", CALIBRATION_IMAGES, options.seed)
    return Bench(model, calibration, images, labels, log_probabilities(model, images))


def uniform_quantizers(given: Bench, options: argparse.Namespace) -> dict[str, Quantizer]:
    """The quantizer of every layer, with the same number of groups in all that are grouped."""
    ranges = igq.observe(given.model, given.calibration)
    candidates = igq.fit(ranges, [options.groups], options.bits)
    return candidates.select(igq.uniform(candidates.layers, options.groups))


class _Kept(nn.Module):
    """Keeps what passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def activations(
    model: nn.Module, images: Float[Tensor, "drawn channels height width"]
) -> dict[str, Tensor]:
    """What passes each layer of a full-precision model on images, by the layer's name."""
    kept = {layer.name: _Kept() for layer in igq.layers(model)}
    with torch.inference_mode():
        with_slots(model, lambda layer: kept[layer.name])(images)
    return {name: slot.seen for name, slot in kept.items()}


def machine() -> str:
    """What this is run on, in a line."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
