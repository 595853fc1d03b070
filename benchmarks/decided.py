"""What a decided candidate of a real search costs, in forward passes of the same images.

    python -m benchmarks.decided --trials 120

A whole search on real weights in one process, pruning and reuse of activations included. Every few
trials the full-precision model (float32, as timm has it) runs on the search images in between, so
that both have the same machine.
"""

import argparse
import io
import time
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from rich.console import Console
from torch import nn

import search_spaces
from benchmarks.real import ASSETS, machine
from igq.evaluation import log_probabilities
from pipeline.cluster import InProcess
from pipeline.config import Request
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.preparation import load_model
from pipeline.screen import Screen
from pipeline.searching import search
from pipeline.study import Origin, Trial
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
        """Note the trial, and now and then what a forward pass takes."""
        super().record(trial)
        if trial.number % EVERY == 0:
            start = time.perf_counter()
            log_probabilities(self.model, self.images.values)
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
    weights = ASSETS / "weights" / f"{space.model.name.partition('.')[0]}.safetensors"
    model = load_model(space, weights)[0]
    folder = str(ASSETS / "images" / "train1000")
    source = open_source(folder, Preprocessing.of(model))
    images = draw({"search": (source, space.search_images, space.search_images)}, options.seed)
    tracker = Timing(model, images["search"])
    with TemporaryDirectory() as temporary:
        request = Request(
            space,
            options.out or Path(temporary, "study"),
            weights=weights,
            images=folder,
            trials=options.trials,
            seed=options.seed,
            rivals=False,
        )
        with Screen(Console(file=io.StringIO())) as screen:
            search(request, InProcess(), tracker, screen)
    forward = median(tracker.forwards)
    ended = list(tracker.trials.values())
    proposed = [t for t in ended if t.proposal.origin is Origin.SAMPLER]
    print(f"{options.space}, {len(images['search'])} search images; {machine()}")
    print("| trials | number | images seen | seconds | of a forward pass |\n|---|---|---|---|---|")
    for name, trials in (("all", ended), ("proposed", proposed)):
        seconds, seen = fmean(t.seconds for t in trials), fmean(len(t.kls) for t in trials)
        print(f"| {name} | {len(trials)} | {seen:.1f} | {seconds:.2f} | {seconds / forward:.2f} |")
    print(f"a forward pass of the search images: {forward:.2f} s")


if __name__ == "__main__":
    main()
