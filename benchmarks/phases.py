"""Share of a search's time by phase, with one worker and with two of one thread each.

    python -m benchmarks.phases --models vit_tiny_patch16_224 vit_small_patch16_224 --workers 1 2

Weights and images are random: they serve for times alone. Several workers are Ray's, one alone is
this process. It corrects weights, measures and predicts sensitivities phase by phase; several do so
side by side. A trial is computed once and counted `--trials` times. Memory is the most that a
process had resident in a phase, beside the bytes of a worker that `igq search --plan` states. The
load of the machine is printed beside.
"""

import argparse
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

import torch
from torch import nn

import igq
from benchmarks.real import machine
from igq import Allocation
from igq.correction import correction_passes
from igq.evaluation import log_probabilities
from igq.layer import grouped
from igq.progress import Progress, silent
from igq.quantized import quantize_weights
from igq.scheme import TUNING_STEPS
from igq.sensitivities import predicted_batches, predicted_passes, sensitivity_passes
from pipeline.cluster import Cluster, InProcess
from pipeline.cluster.ray import RayCluster
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Compute, Here, Part
from pipeline.preparation.costs.memory import Load, memory
from pipeline.preparation.parts.phases import (
    PARTS,
    Common,
    correct_weights,
    cut,
    fit_candidates,
    measuring,
    predict_batches,
)

DIGITS = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 48}
NUM_GROUPS = (2, 4, 6, 8, 10, 12)
PHASES = ("correct", "measure", "predict", "trials")
TOGETHER = "correct, measure, predict"
GIB = 2**30


@dataclass(frozen=True)
class Taken:
    """The seconds of a phase, and the most bytes that a process had in it."""

    seconds: float
    peak: int


def main() -> None:
    """Print seconds, shares and memory of each phase."""
    options = parsed()
    torch.set_num_threads(1)
    print(f"{options.images} search and calibration images, {options.steps} steps of tuning")
    print(f"{machine()}; GiB are the most of one process, and of a worker as it is stated")
    print("| model | workers | phase | s | share | GiB | stated | load |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.models:
        seconds = {workers: rows(name, workers, options) for workers in options.workers}
        for workers in set(seconds) - {1} if 1 in seconds else ():
            faster = seconds[1] / seconds[workers]
            print(f"{name}: prepared {faster:.2f} times as fast by {workers} workers", flush=True)


def rows(name: str, workers: int, options: argparse.Namespace) -> float:
    """Print the rows of a model with so many workers; return the seconds before the first trial."""
    model, images = drawn(name, options.images)
    told = stated(model, images)
    taken = phases(model, images, workers, options)
    total = sum(one.seconds for one in taken.values())
    for phase, one in taken.items():
        known = f"{told[phase] / GIB:.1f}" if phase in told else ""
        print(
            f"| {name} | {workers} | {phase} | {one.seconds:.1f} | {one.seconds / total:.0%} "
            f"| {one.peak / GIB:.2f} | {known} | {os.getloadavg()[0]:.1f} |",
            flush=True,
        )
    return sum(one.seconds for phase, one in taken.items() if phase != "trials")


def drawn(name: str, count: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a model with random weights, and as many random images that it takes."""
    torch.manual_seed(0)
    if name == "digits":
        return igq.create("vit_tiny_patch16_224", DIGITS).eval(), torch.randn(count, 1, 8, 8)
    return igq.create(name).eval(), torch.randn(count, 3, 224, 224)


def stated(model: nn.Module, images: torch.Tensor) -> Mapping[str, int]:
    """Return phase -> bytes of a worker, as `igq search --plan` states them."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    load = Load(len(images), len(images), images[0].nbytes, max(1, len(images) // 8))
    found = memory(igq.layers(model), parameters, load)
    sensed, most = found.sensitivities, max(found.correction, found.sensitivities)
    named = {"correct": found.correction, "measure": sensed, "predict": sensed}
    return named | {TOGETHER: most, "trials": found.trials}


def phases(
    model: nn.Module, images: torch.Tensor, workers: int, options: argparse.Namespace
) -> dict[str, Taken]:
    """Return phase -> what it takes."""
    model = igq.rotated(model, igq.Scheme.BEST.rotation)
    how = (igq.Scheme.BEST, NUM_GROUPS, 4)
    fitting = [Part("fit", fit_candidates, how, len(images))]
    found, fitted = timed(Here(), (model, images), fitting)
    taken = {"fit": fitted}
    chunk = max(1, len(images) // 8)
    common = Common(model, found["fit"], images, images, len(images), chunk)
    cluster: Cluster = InProcess() if workers == 1 else RayCluster(workers=workers)
    groups = parts_of(common, cluster, options)
    if workers > 1 and len(groups) > 1:
        groups = {", ".join(groups): [part for some in groups.values() for part in some]}
    for phase, parts in groups.items():
        results, taken[phase] = timed(cluster, common, parts)
        found |= results
    if "trials" in options.only:
        each = [Part("trial", trial, NUM_GROUPS[0], 1.0)]
        results, one = timed(cluster, task_of(common, found), each)
        taken["trials"] = replace(one, seconds=results["trial"] * options.trials / workers)
    return taken


def timed(cluster: Any, common: Any, parts: list[Part]) -> tuple[dict[str, Any], Taken]:
    """Return part name -> result, and what all parts take."""
    start = perf_counter()
    seen = [
        replace(part, compute=watched, argument=(part.compute, part.argument)) for part in parts
    ]
    found = {part.name: result for part, result in cluster.map(common, seen, silent)}
    peak = max(bytes_taken for _, bytes_taken in found.values())
    results = {name: result for name, (result, _) in found.items()}
    return results, Taken(perf_counter() - start, peak)


def watched(
    common: Any, how: tuple[Compute, Any], device: str, progress: Progress
) -> tuple[Any, int]:
    """Compute a part; return its result, and the most bytes that the process had meanwhile."""
    with suppress(OSError):  # the most so far is forgotten, where Linux can
        Path("/proc/self/clear_refs").write_text("5")
    compute, argument = how
    result = compute(common, argument, device, progress)
    return result, 1024 * getrusage(RUSAGE_SELF).ru_maxrss


def trial(task: Task, num_groups: int, device: str, progress: Progress) -> float:
    """Return the seconds of a trial of a uniform allocation, without its worker's start."""
    allocation: Allocation = igq.uniform(task.candidates.layers, num_groups)
    objective, start = Objective(task, device), perf_counter()
    list(objective.evaluate(allocation))
    return perf_counter() - start


def task_of(common: Common, found: Mapping[str, Any]) -> Task:
    """Return the task of trials, with the corrected weights where there are any."""
    model, images = common.model, common.images
    corrected = found.get("correct") or igq.Corrected(model, quantize_weights(model, 4))
    reference, weights = log_probabilities(model, images), {4: corrected.weights}
    return Task(corrected.model, weights, common.candidates, images, reference, common.chunk_size)


def parts_of(
    common: Common, cluster: Cluster, options: argparse.Namespace
) -> dict[str, list[Part]]:
    """Return the parts of each phase before the trials."""
    images, candidates = len(common.images), common.candidates
    passes = sensitivity_passes(common.model, candidates.layers, len(candidates.num_groups), images)
    batches = predicted_batches(candidates, images)
    share = predicted_passes(images, len(candidates.num_groups)) / batches
    pieces = cut([1.0] * batches, max(PARTS, 2 * cluster.count()))
    steps = correction_passes(images, options.steps)
    every = {
        "correct": [Part("correct", correct_weights, (4, options.steps), steps)],
        "measure": measuring("measure", common, cluster, passes, grouped(candidates.layers)),
        "predict": [
            Part(f"predict {a}", predict_batches, (a, b), share * (b - a)) for a, b in pieces
        ],
    }
    return {phase: parts for phase, parts in every.items() if phase in options.only}


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=TUNING_STEPS)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=PHASES, default=PHASES, help="of the phases")
    return parser.parse_args()


if __name__ == "__main__":
    main()
