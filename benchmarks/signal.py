"""What ranks allocations on images that the search has not seen, and which pruner may stop them.

    python -m benchmarks.signal --store evaluations.npz [--allocations 16] [--held-out 256]

Evaluates allocations within the budget, among them uniform, on search and on held-out images, and
keeps the KL and the shift of every image; where the file is there, it is read. Then:

- ranking: Kendall's tau between a statistic of n search images and the mean KL of the held-out
  ones, with the 5th and 95th percentile over images drawn again;
- pruning: what each rule saves against evaluating all, and how often it stops the one that is best
  on all search images, over random orders of trials and images.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import kendalltau, trim_mean, wilcoxon

import igq
from benchmarks.real import ASSETS, CALIBRATION_IMAGES, machine
from igq.evaluation import divergences, log_probabilities
from igq.vit import assemble, quantize_weights, set_quantizers
from pipeline.budget import largest_uniform, random_allocation
from pipeline.data import Preprocessing, draw, open_source

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
DRAWS = 60
CHUNK = 8
"""Images between two decisions of a pruner."""
Array = Float[np.ndarray, "..."]
Stop = Callable[[Array, Array], bool]
"""Whether a trial with these KLs so far stops; beside them the best trial's on the same images."""

STATISTICS: Mapping[str, Callable[[Array, Array], Array]] = {
    "mean KL": lambda kls, shifts: kls.mean(-1),
    "trimmed mean KL": lambda kls, shifts: trim_mean(kls, 0.1, axis=-1),
    "median KL": lambda kls, shifts: np.median(kls, axis=-1),
    "mean log KL": lambda kls, shifts: np.log(kls + 0.05).mean(-1),
    "mean log shift": lambda kls, shifts: np.log(shifts).mean(-1),
}


def clearly_worse(p: float) -> Stop:
    """Optuna's WilcoxonPruner, image by image."""

    def stop(kls: Array, best: Array) -> bool:
        test = wilcoxon(kls - best, alternative="greater", zero_method="zsplit").pvalue
        return bool(test < p and kls.mean() >= best.mean())

    return stop


RULES: Mapping[str, Stop] = {
    "none": lambda kls, best: False,
    "Wilcoxon, p 0.05": clearly_worse(0.05),
    "Wilcoxon, p 0.1": clearly_worse(0.1),
    "Wilcoxon, p 0.2": clearly_worse(0.2),
    "mean above the best's": lambda kls, best: bool(kls.mean() > best.mean()),
    "mean 20 % above the best's": lambda kls, best: bool(kls.mean() > 1.2 * best.mean()),
}


def ranking(search: Array, held: Array) -> None:
    """Print how well n search images rank; arrays are (allocations, images, KL and shift)."""
    generator = np.random.default_rng(0)
    print("| statistic | n | tau | 5 % | 95 % |\n|---|---|---|---|---|")
    for name, statistic in STATISTICS.items():
        for n in (16, 32, 64, 128):
            taus = []
            for _ in range(DRAWS):
                seen = search[:, generator.choice(search.shape[1], n)]
                unseen = held[:, generator.choice(held.shape[1], held.shape[1]), 0].mean(1)
                taus.append(kendalltau(statistic(seen[..., 0], seen[..., 1]), unseen).statistic)
            low, high = np.percentile(taus, (5, 95))
            print(f"| {name} | {n} | {np.mean(taus):.2f} | {low:.2f} | {high:.2f} |")


def pruning(search: Array) -> None:
    """Print what each rule saves, and how often it stops the best on all search images."""
    print("| rule | forwards saved | best stopped |\n|---|---|---|")
    for name, stop in RULES.items():
        generator = np.random.default_rng(0)
        saved, lost = [], []
        for _ in range(DRAWS):
            order = generator.permutation(search.shape[1])
            kls = generator.permutation(search[:, order, 0])
            best, seen, winner = kls[0], 0, int(kls.mean(1).argmin())
            stopped = False
            for number, trial in enumerate(kls[1:], start=1):
                for end in range(CHUNK, kls.shape[1] + 1, CHUNK):
                    if end < kls.shape[1] and stop(trial[:end], best[:end]):
                        stopped |= number == winner
                        break
                seen += end
                if end == kls.shape[1] and trial.mean() < best.mean():
                    best = trial
            saved.append(1 - seen / kls[1:].size)
            lost.append(stopped)
        print(f"| {name} | {np.mean(saved):.0%} | {np.mean(lost):.1%} |")


def collect(options: argparse.Namespace) -> None:
    """Evaluate and keep: `search` and `held`, each (allocations, images, KL and shift)."""
    weights = ASSETS / "weights" / f"{options.model}.safetensors"
    model = igq.create(options.model, {}, weights)
    train, unseen = (
        open_source(str(ASSETS / "images" / name), Preprocessing.of(model))
        for name in ("train1000", "val650")
    )
    drawn = draw(
        {
            "calibration": (train, CALIBRATION_IMAGES, CALIBRATION_IMAGES),
            "search": (train, options.search, options.search),
            "held": (unseen, options.held_out, options.held_out),
        },
        seed=0,
    )
    candidates = igq.fit(igq.observe(model, drawn["calibration"].values), GROUPS, options.bits)
    table = igq.bops(candidates.layers, GROUPS, options.bits, options.bits)
    budget = table.of(igq.uniform(candidates.layers, options.groups))
    generator = np.random.default_rng(0)
    allocations = [largest_uniform(candidates.layers, table, budget)]
    while len(allocations) < options.allocations:
        allocations.append(random_allocation(table, budget, generator))
    quantized = assemble(model, {}, quantize_weights(model, options.bits))

    def measured(purpose: str) -> Array:
        images = drawn[purpose].values
        reference, rows = log_probabilities(model, images), []
        for allocation in allocations:
            set_quantizers(quantized, candidates.select(allocation))
            outputs = log_probabilities(quantized, images)
            shifts = (outputs - reference).var(-1, unbiased=False)
            rows.append(torch.stack((divergences(reference, outputs), shifts), -1).numpy())
        return np.stack(rows)

    np.savez(options.store, search=measured("search"), held=measured("held"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--allocations", type=int, default=16)
    parser.add_argument("--search", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--groups", type=int, default=8)
    options = parser.parse_args()
    if not options.store.exists():
        collect(options)
    with np.load(options.store) as stored:
        search, held = stored["search"], stored["held"]
    print(f"{machine()}; {len(search)} allocations, {search.shape[1]} + {held.shape[1]} images\n")
    ranking(search, held)
    print()
    pruning(search)


if __name__ == "__main__":
    main()
