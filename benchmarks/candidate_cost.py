"""Time of one candidate, in full-precision forward passes of the same images.

    python -m benchmarks.candidate_cost
    python -m benchmarks.candidate_cost --models vit_tiny --images 32 --groups 2 8 32 --json
    python -m benchmarks.candidate_cost --models vit_tiny --scheme paper

In one process and in turns: timm's model as it is (float32), a candidate as a worker evaluates it
(nothing reused), and the plain quantizer of `benchmarks.plain`. Medians over the rounds, with the
quartiles of the ratio; memory is the most that a pass adds to the process, beside the most that
the full-precision pass adds. Without real weights (`IGQ_ASSETS`) they are random.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import torch
from torch import Tensor, nn

import igq
from benchmarks.plain import plain
from benchmarks.real import ASSETS, DIGITS, SCHEMES, load, machine
from igq import Candidates
from igq.evaluation import log_probabilities
from igq.quantized import EAGER, fastest, quantize_weights, rotated
from pipeline.data import Preprocessing
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task

MODELS = {
    "vit_tiny": "vit_tiny_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    DIGITS: DIGITS,
}
NUM_GROUPS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Cost:
    """Medians of one setting: ratios to the full-precision forward pass."""

    model: str
    images: int
    batch: int
    groups: int
    forward_seconds: float
    candidate_over_forward: float
    quartiles: tuple[float, float]
    eager_over_forward: float
    plain_over_forward: float
    plain_over_candidate: float
    memory_over_forward: float
    first_seconds: float
    """The first candidate, with compiling or what is left of it when it was done before."""


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS)[:3])
    parser.add_argument("--images", nargs="+", type=int, default=[32])
    parser.add_argument("--batch", nargs="+", type=int, default=[32])
    parser.add_argument("--groups", nargs="+", type=int, choices=NUM_GROUPS, default=[2, 8, 32])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scheme", choices=SCHEMES, default="best")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    costs: list[Cost] = []
    if not options.json:
        print(f"{machine()}, {device}, {fastest(device)}, {options.rounds} rounds")
        print("| model | images | batch | groups | forward s | candidate | (quartiles) | eager "
              "| plain | plain / candidate | memory | first s |\n" + "|---" * 12 + "|")  # fmt: skip
    for name in options.models:
        scheme = SCHEMES[options.scheme]
        model = rotated(_model(MODELS[name]).to(device), scheme.rotation)
        size = Preprocessing.of(model).config["input_size"]
        for images in options.images:
            x = torch.randn(images, *size, generator=torch.Generator().manual_seed(0))
            candidates = igq.fit(igq.observe(model, x[:8].to(device), scheme), NUM_GROUPS, bits=4)
            for batch in (b for b in options.batch if b <= images):
                for groups in options.groups:
                    cost = _cost(name, model, x, candidates, batch, groups, options.rounds)
                    costs.append(cost)
                    if not options.json:
                        print(_row(cost), flush=True)
    if options.json:
        json.dump(_by_model(costs), sys.stdout, indent=1)


def _by_model(costs: list[Cost]) -> dict[str, object]:
    """Map each model to its cost at 8 groups, or nearly so many, and to all its settings."""
    found: dict[str, object] = {}
    for name in dict.fromkeys(cost.model for cost in costs):
        rows = [cost for cost in costs if cost.model == name]
        chosen = min(rows, key=lambda c: (abs(c.groups - 8), abs(c.images - 32), -c.batch))
        found[name] = {**asdict(chosen), "settings": [asdict(row) for row in rows]}
    return found


def _row(c: Cost) -> str:
    low, high = c.quartiles
    return (
        f"| {c.model} | {c.images} | {c.batch} | {c.groups} | {c.forward_seconds:.3f} "
        f"| {c.candidate_over_forward:.2f} | {low:.2f}-{high:.2f} | {c.eager_over_forward:.2f} "
        f"| {c.plain_over_forward:.2f} | {c.plain_over_candidate:.2f} "
        f"| {c.memory_over_forward:.2f} | {c.first_seconds:.1f} |"
    )


def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    there = name == DIGITS or (ASSETS / "weights" / f"{name}.safetensors").is_file()
    return load(name) if there else igq.create(name, {})


def _cost(
    name: str,
    model: nn.Module,
    images: Tensor,
    candidates: Candidates,
    batch: int,
    groups: int,
    rounds: int,
) -> Cost:
    device = next(model.parameters()).device
    allocation = igq.uniform(candidates.layers, groups)
    chosen, weights = candidates.select(allocation), quantize_weights(model, 4)
    reference = log_probabilities(model, images)
    by_bits = {4: weights}
    task = Task(model.cpu(), by_bits, candidates, images, reference, batch, fastest(device))
    eager = Task(model, by_bits, candidates, images, reference, batch, EAGER)
    written = plain(model, chosen, weights).to(device)
    objectives = [Objective(t, device, memory=0) for t in (task, eager)]
    model.to(device)

    def forward(module: nn.Module) -> Callable[[], object]:
        return lambda: log_probabilities(module, images, batch)

    def evaluation(objective: Objective) -> Callable[[], object]:
        return lambda: list(objective.evaluate(allocation))

    ways = [forward(model), *map(evaluation, objectives), forward(written)]
    first = [_seconds(way) for way in ways]
    times = [[_seconds(way) for way in ways] for _ in range(rounds)]
    full, _, slow, plainly = (median(column) for column in zip(*times, strict=True))
    ratios = [row[1] / row[0] for row in times]
    low, _, high = quantiles(ratios, n=4)
    memory = [_peak(way, device) for way in ways[:2]]
    return Cost(
        name,
        len(images),
        batch,
        groups,
        full,
        median(ratios),
        (low, high),
        slow / full,
        plainly / full,
        median(row[3] / row[1] for row in times),
        memory[1] / memory[0],
        first[1],
    )


def _seconds(way: Callable[[], object]) -> float:
    start = perf_counter()
    way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - start


def _peak(way: Callable[[], object], device: torch.device) -> float:
    """Return the most bytes that the process, or the GPU, holds during a pass."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        way()
        return float(torch.cuda.max_memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest mark so far
    way()
    status = Path("/proc/self/status").read_text().split()
    return 1024 * float(status[status.index("VmHWM:") + 1])


if __name__ == "__main__":
    main()
