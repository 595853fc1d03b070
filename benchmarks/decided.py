"""Time of a decided candidate of a search, in forward passes of the same images.

    python -m benchmarks.decided --trials 120

A whole search on real weights in one process, pruning and reuse of activations included. Every few
trials the full-precision model (float32, as timm has it) runs on the search images in between, so
that both have the same machine.
"""

import argparse
import time
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from torch import nn

import pipeline
import search_spaces
from benchmarks.real import ASSETS, machine
from igq.evaluation import log_probabilities
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.preparation.models import load_model
from pipeline.study.progress import SilentDisplay
from pipeline.study.trials import Origin, Trial
from pipeline.tracking import InMemoryTracker

EVERY = 10
"""Trials between two forward passes."""


class Timing(InMemoryTracker):
    """Times the full-precision model between trials."""

    def __init__(self, model: nn.Module, images: Images) -> None:
        super().__init__()
        self.model, self.images = model, images
        self.forwards: list[float] = []

    def record(self, trial: Trial) -> None:
        """Keep the trial; every few trials time a forward pass."""
        super().record(trial)
        if trial.number % EVERY == 0:
            start = time.perf_counter()
            log_probabilities(self.model, self.images.loaded())
            self.forwards.append(time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="vit_tiny_w4a4")
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep the study there, with what it has cached")
    options = parser.parse_args()
    few = {"final_images": 0, "validation_images": 2}
    space = search_spaces.load(options.space).model_copy(update=few)
    real = ASSETS / "weights" / f"{space.model.name.partition('.')[0]}.safetensors"
    weights = None if space.weights else real
    model = load_model(space, weights)[0]
    folder = space.images or str(ASSETS / "images" / "train1000")
    source = open_source(folder, Preprocessing.of(model))
    images = draw({"search": (source, space.search_images, space.search_images)}, options.seed)
    tracker = Timing(model, images["search"])
    with TemporaryDirectory() as temporary:
        pipeline.search(
            space,
            options.out or Path(temporary, "study"),
            weights=weights,
            tracking=tracker,
            display=SilentDisplay(),
            images=folder,
            trials=options.trials,
            seed=options.seed,
            rivals=False,
            figures=False,
        )
    forward = median(tracker.forwards)
    ended = list(tracker.trials.values())
    proposed = [t for t in ended if t.proposal.origin is Origin.SAMPLER]
    print(f"{options.space}, {len(images['search'])} search images; {machine()}")
    print("| trials | number | images seen | seconds | of a forward pass |\n|---|---|---|---|---|")
    for name, trials in (("all", ended), ("proposed", proposed)):
        seconds, seen = fmean(t.seconds for t in trials), fmean(len(t.observation) for t in trials)
        print(f"| {name} | {len(trials)} | {seen:.1f} | {seconds:.2f} | {seconds / forward:.2f} |")
    print(f"a forward pass of the search images: {forward:.2f} s")


if __name__ == "__main__":
    main()
