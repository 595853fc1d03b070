"""Share of a search's time by phase, with one worker and with two of one thread each.

    python -m benchmarks.phases --models vit_tiny_patch16_224 vit_small_patch16_224 --workers 1 2

Weights and images are random: they serve for times alone. A worker more is Ray's, one alone is this
process. Corrected weights and both tables of sensitivities are one phase where workers compute them
side by side. Say beside the figures what else the machine was doing: the load is printed.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import igq
from benchmarks.real import machine
from igq.correction import correction_passes
from igq.evaluation import log_probabilities
from igq.layer import grouped
from igq.progress import silent
from igq.sensitivities import predicted_batches, predicted_passes, sensitivity_passes
from pipeline.cluster import Cluster, InProcess
from pipeline.cluster.ray import RayCluster
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Part
from pipeline.preparation.parts.phases import (
    PARTS,
    Common,
    correct_weights,
    cut,
    measuring,
    predict_batches,
)

DIGITS = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 48}
NUM_GROUPS = (2, 4, 6, 8, 10, 12)


def main() -> None:
    """Print seconds and shares of each phase."""
    options = parsed()
    torch.set_num_threads(1)
    print(f"{options.images} search and calibration images, {options.steps} steps of tuning")
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    for name in options.models:
        for workers in options.workers:
            seconds = phases(name, workers, options)
            total = sum(seconds.values())
            parts = ", ".join(f"{k} {s:.1f} s ({s / total:.0%})" for k, s in seconds.items())
            print(f"{name}, {workers} workers: {total:.1f} s: {parts}", flush=True)


def phases(name: str, workers: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of each phase."""
    torch.manual_seed(0)
    digits = name == "digits"
    model = igq.create("vit_tiny_patch16_224" if digits else name, DIGITS if digits else {}).eval()
    images = torch.randn(options.images, *((1, 8, 8) if digits else (3, 224, 224)))
    scheme = igq.Scheme.BEST
    model = igq.rotated(model, scheme.rotation)
    seconds: dict[str, float] = {}

    def timed(phase: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = run()
        seconds[phase] = time.perf_counter() - start
        return found

    cluster: Cluster = InProcess() if workers == 1 else RayCluster(workers=workers)
    candidates = timed("fit", lambda: igq.fit(igq.observe(model, images, scheme), NUM_GROUPS, 4))
    chunk = max(1, len(images) // 8)
    common = Common(model, candidates, images, images, len(images), chunk)
    groups = parts_of(common, cluster, options.steps)
    if workers > 1:
        groups = {"correct and measure": [part for some in groups.values() for part in some]}
    found = {
        part.name: result
        for phase, parts in groups.items()
        for part, result in timed(phase, partial(mapped, cluster, common, parts))
    }
    corrected = found["correct"]
    reference = log_probabilities(model, images)
    weights = {4: corrected.weights}
    task = Task(corrected.model, weights, candidates, images, reference, chunk)
    allocation = igq.uniform(candidates.layers, NUM_GROUPS[0])
    objective = Objective(task)
    timed("trials", lambda: list(objective.evaluate(allocation)))
    seconds["trials"] *= options.trials / max(1, workers)
    return seconds


def mapped(cluster: Cluster, common: Common, parts: list[Part]) -> list[tuple[Part, Any]]:
    """Return each part with its result."""
    return list(cluster.map(common, parts, silent))


def parts_of(common: Common, cluster: Cluster, steps: int) -> dict[str, list[Part]]:
    """Return the parts of each phase."""
    images, candidates = len(common.images), common.candidates
    passes = sensitivity_passes(common.model, candidates.layers, len(candidates.num_groups), images)
    batches = predicted_batches(candidates, images)
    share = predicted_passes(images, len(candidates.num_groups)) / batches
    pieces = cut([1.0] * batches, max(PARTS, 2 * cluster.count()))
    corrected = Part("correct", correct_weights, (4, steps), correction_passes(images, steps))
    every = grouped(candidates.layers)
    return {
        "correct": [corrected],
        "measure": measuring("measure", common, cluster, passes, every),
        "predict": [
            Part(f"predict {a}", predict_batches, (a, b), share * (b - a)) for a, b in pieces
        ],
    }


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--trials", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
