"""How much of what allocations differ in an additive surrogate learns, from KLs and from shifts.

    python -m benchmarks.samplers --store perturbed.npz [--allocations 266]

Allocations near uniform, half of their layers moved by up to two places and mended to the budget,
each on 32 of the search images, in turn; kept in the file, and read where it is there. For each
discrepancy:

- signal: the share of the variance between allocations' means that is not noise between images;
- predicted: correlation of a left-out allocation's own KL, and of its own discrepancy, with what
  the surrogate predicts from the others (ten folds). The root of the signal is the most there is.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

import igq
from benchmarks.real import ASSETS, CALIBRATION_IMAGES, machine
from igq.evaluation import divergences, log_probabilities, shifts
from igq.vit import assemble, quantize_weights, set_quantizers
from pipeline.budget import keep
from pipeline.data import Preprocessing, draw, open_source
from pipeline.surrogate import SMALLEST, Evidence, learn

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
IMAGES, POOL, FOLDS, REACH = 32, 640, 10, 2
Array = Float[np.ndarray, "..."]


def evidence(
    places: Int[np.ndarray, "trials layers"], images: Int[np.ndarray, "trials seen"], logs: Array
) -> Evidence:
    """Every trial's logs in the columns of the images that it saw."""
    rows = np.full((len(places), images.max() + 1), np.nan)
    np.put_along_axis(rows, images, logs, axis=1)
    return Evidence(places, rows)


def signal(given: Evidence, effects: Array) -> float:
    """The share of the effects' variance that is not noise between images."""
    rest = given.logs - np.nanmean(given.logs, axis=0) - effects[:, None]
    noise = np.nanvar(rest) / np.isfinite(given.logs).sum(1).mean()
    return float(1 - noise / effects.var())


def predicted(features: Array, effects: Array, images: Array) -> Array:
    """What the surrogate says of each trial, having learned from the others."""
    order, said = np.random.default_rng(0).permutation(len(effects)), np.zeros(len(effects))
    for fold in range(FOLDS):
        left_out = order[fold::FOLDS]
        rest = np.setdiff1d(order, left_out)
        worths = learn(features[rest], effects[rest], images[rest])
        said[left_out] = (features[left_out] - features[rest].mean(0)) @ worths.mean
    return said


def collect(options: argparse.Namespace) -> None:
    """Evaluate and keep: `places`, `images` (trials, seen) and `values` (.., KL and shift)."""
    weights = ASSETS / "weights" / f"{options.model}.safetensors"
    model = igq.create(options.model, {}, weights)
    source = open_source(str(ASSETS / "images" / "train1000"), Preprocessing.of(model))
    counts = {"calibration": CALIBRATION_IMAGES, "search": POOL}
    drawn = draw({name: (source, count, count) for name, count in counts.items()}, seed=0)
    candidates = igq.fit(igq.observe(model, drawn["calibration"].values), GROUPS, options.bits)
    table = igq.bops(candidates.layers, GROUPS, options.bits, options.bits)
    base = igq.uniform(candidates.layers, options.groups)
    quantized = assemble(model, {}, quantize_weights(model, options.bits))
    search = drawn["search"].values
    reference = log_probabilities(model, search)
    places, seen, values = [], [], []
    for number in range(options.allocations):
        generator = np.random.default_rng([7, number])
        moved = {}
        for name, groups in base.items():
            step = generator.integers(-REACH, REACH + 1) if generator.random() < 0.5 else 0
            moved[name] = GROUPS[int(np.clip(GROUPS.index(groups) + step, 0, len(GROUPS) - 1))]
        allocation = keep(moved, table, table.of(base), generator)
        images = np.arange(IMAGES) + IMAGES * (number % (POOL // IMAGES))
        set_quantizers(quantized, candidates.select(allocation))
        outputs, expected = log_probabilities(quantized, search[images]), reference[images]
        measured = torch.stack((divergences(expected, outputs), shifts(expected, outputs)), -1)
        places.append([GROUPS.index(groups) for groups in allocation.values()])
        seen.append(images)
        values.append(measured.numpy())
    np.savez(options.store, places=np.array(places), images=np.array(seen), values=np.stack(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--allocations", type=int, default=266)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--groups", type=int, default=8)
    options = parser.parse_args()
    if not options.store.exists():
        collect(options)
    with np.load(options.store) as stored:
        places, images, values = (stored[name] for name in ("places", "images", "values"))
    features = 1 / np.array(GROUPS, dtype=float)[places]
    target, _ = evidence(places, images, np.log(values[..., 0] + SMALLEST)).effects
    print(f"{machine()}; {len(places)} allocations, {images.shape[1]} images each\n")
    print("| learned from | signal | own effect predicted | KL predicted |\n|---|---|---|---|")
    for name, column in (("log KL", 0), ("log shift", 1)):
        given = evidence(places, images, np.log(values[..., column] + SMALLEST))
        effects, counts = given.effects
        said = predicted(features, effects, counts)
        own, kl = (np.corrcoef(said, of)[0, 1] for of in (effects, target))
        print(f"| {name} | {signal(given, effects):.2f} | {own:.2f} | {kl:.2f} |")


if __name__ == "__main__":
    main()
