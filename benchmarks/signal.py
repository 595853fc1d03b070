"""What ranks allocations on images that the search has not seen, and which pruner may stop them.

    python -m benchmarks.signal --store evaluations.npz [--allocations 16] [--held-out 256]

Evaluates allocations within the budget, among them uniform, on search and on held-out images, and
keeps the KL and the shift of every image; where the file is there, it is read. Then:

- ranking: Spearman's rank correlation between a statistic of n search images and the mean KL of
  the held-out ones, with the 5th and 95th percentile over images drawn again;
- pruning: what each rule saves against evaluating all, and how often it stops the one that is best
  on all search images, over random orders of trials and images. `--images` says of how many.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr, trim_mean, wilcoxon

import igq
from benchmarks.real import ASSETS, CALIBRATION_IMAGES, machine
from igq.evaluation import divergences, log_probabilities, shifts
from igq.vit import assemble, quantize_weights, set_quantizers
from pipeline.budget import largest_uniform, random_allocation
from pipeline.data import Preprocessing, draw, open_source

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
DRAWS = 100
CHUNKS = 8
"""Decisions on a trial that is not stopped, and one more: as in a search."""
Array = Float[np.ndarray, "..."]
Stop = Callable[[Array, Array, Array], bool]
"""Whether a trial stops that has these KLs. It also knows those of the trials before it that were
not stopped, on the same images, and the mean KL of all that came as far."""

STATISTICS: Mapping[str, Callable[[Array, Array], Array]] = {
    "mean KL": lambda kls, shifts: kls.mean(-1),
    "trimmed mean KL": lambda kls, shifts: trim_mean(kls, 0.1, axis=-1),
    "median KL": lambda kls, shifts: np.median(kls, axis=-1),
    "mean log KL": lambda kls, shifts: np.log(kls + 0.05).mean(-1),
    "mean log shift": lambda kls, shifts: np.log(shifts).mean(-1),
}


def best_of(before: Array) -> Array:
    """The trial of least KL."""
    best: Array = before[before.mean(1).argmin()]
    return best


def wilcoxon_pruner(p: float, chunk: int = 1) -> Stop:
    """Optuna's WilcoxonPruner on the mean KL of each `chunk` images."""

    def stop(kls: Array, before: Array, reached: Array) -> bool:
        mine, best = (row.reshape(-1, chunk).mean(1) for row in (kls, best_of(before)))
        test = wilcoxon(mine - best, alternative="greater", zero_method="zsplit").pvalue
        return bool(test < p and mine.mean() >= best.mean())

    return stop


def halving_pruner(chunk: int, factor: int) -> Stop:
    """Optuna's SuccessiveHalvingPruner: the best of `factor` go on at 1, `factor`, ... chunks."""

    def stop(kls: Array, before: Array, reached: Array) -> bool:
        rung = len(kls) // chunk
        while rung % factor == 0:
            rung //= factor
        competing = np.sort([*reached, kls.mean()])
        return rung == 1 and bool(kls.mean() > competing[max(0, len(competing) // factor - 1)])

    return stop


def rules(chunk: int) -> Mapping[str, Stop]:
    """The rules that are compared; all but the images' own Wilcoxon know nothing of noise."""
    chunked = {f"Wilcoxon of chunks, p {p}": wilcoxon_pruner(p, chunk) for p in (0.05, 0.1, 0.2)}
    single = {f"Wilcoxon of images, p {p}": wilcoxon_pruner(p) for p in (0.01, 0.05, 0.1)}
    return {
        "none": lambda kls, before, reached: False,
        **chunked,
        **single,
        "successive halving, 1 of 2": halving_pruner(chunk, 2),
        "successive halving, 1 of 4": halving_pruner(chunk, 4),
        "worse than the median": lambda kls, before, reached: bool(
            kls.mean() > np.median(before.mean(1)) and len(before) > 1
        ),
        "worse than the best": lambda kls, before, reached: bool(
            kls.mean() > best_of(before).mean()
        ),
    }


def ranking(search: Array, held: Array) -> None:
    """Print how well n search images rank; arrays are (allocations, images, KL and shift)."""
    generator = np.random.default_rng(0)
    print("| statistic | n | rank correlation | 5 % | 95 % |\n|---|---|---|---|---|")
    for name, statistic in STATISTICS.items():
        for n in (16, 32, 64, 128):
            taus = []
            for _ in range(DRAWS):
                seen = search[:, generator.choice(search.shape[1], n)]
                unseen = held[:, generator.choice(held.shape[1], held.shape[1]), 0].mean(1)
                taus.append(spearmanr(statistic(seen[..., 0], seen[..., 1]), unseen).statistic)
            low, high = np.percentile(taus, (5, 95))
            print(f"| {name} | {n} | {np.mean(taus):.2f} | {low:.2f} | {high:.2f} |")


def pruning(search: Array) -> None:
    """Print what each rule saves, and how often it stops the best on all search images."""
    chunk = search.shape[1] // CHUNKS
    images = chunk * CHUNKS
    print("| rule | forwards saved | best stopped |\n|---|---|---|")
    for name, stop in rules(chunk).items():
        generator = np.random.default_rng(0)
        saved, lost = [], []
        for _ in range(DRAWS):
            kls = generator.permutation(search[:, :, 0])[:, generator.permutation(images)]
            winner, full, seen, stopped = int(kls.mean(1).argmin()), [0], 0, False
            reached = {end: [kls[0, :end].mean()] for end in range(chunk, images + 1, chunk)}
            for number in range(1, len(kls)):
                for end in range(chunk, images + 1, chunk):
                    mine, others = kls[number, :end], np.array(reached[end])
                    reached[end].append(mine.mean())
                    if end < images and stop(mine, kls[full, :end], others):
                        stopped |= number == winner
                        break
                else:
                    full.append(number)
                seen += end
            saved.append(1 - seen / kls[1:].size)
            lost.append(stopped)
        print(f"| {name} | {np.mean(saved):.0%} | {np.mean(lost):.1%} |", flush=True)


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
    allocations = [largest_uniform(table, budget)]
    while len(allocations) < options.allocations:
        allocations.append(random_allocation(table, budget, generator))
    quantized = assemble(model, {}, quantize_weights(model, options.bits))

    def measured(purpose: str) -> Array:
        images = drawn[purpose].values
        reference, rows = log_probabilities(model, images), []
        for allocation in allocations:
            set_quantizers(quantized, candidates.select(allocation))
            outputs = log_probabilities(quantized, images)
            seen = divergences(reference, outputs), shifts(reference, outputs)
            rows.append(torch.stack(seen, -1).numpy())
        return np.stack(rows)

    np.savez(options.store, search=measured("search"), held=measured("held"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--allocations", type=int, default=16)
    parser.add_argument("--search", type=int, default=128)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--images", type=int, default=64, help="search images of the pruners")
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
    pruning(search[:, : options.images])


if __name__ == "__main__":
    main()
