"""The gain of correcting weights by the number of steps of tuning.

    python -m benchmarks.correction_steps --model deit_tiny_patch16_224 --seeds 0 1 2 3 4

For each calibration seed and number of steps: the discrepancy of all blocks (the loss of tuning) on
as many calibration images again, which were held out; KL on images of val650, on which nothing was
chosen; seconds of rounding and tuning. Then the difference of each number of steps from the most,
paired by seed, with its 95 % interval over seeds.
"""

import argparse
import os
from dataclasses import dataclass
from statistics import mean
from time import perf_counter

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import (
    ASSETS,
    CALIBRATION_IMAGES,
    DIGITS,
    SCHEMES,
    arguments_for,
    load,
    machine,
)
from igq.correction import correction_passes
from igq.correction.discrepancy import Targets, discrepancy
from igq.correction.gram import BATCH_SIZE
from igq.evaluation import log_probabilities
from igq.quantized import rotated
from pipeline.data import Preprocessing, draw, open_source
from pipeline.intervals import interval

NUM_GROUPS = (2, 4, 6, 8, 10, 12)


@dataclass(frozen=True)
class Found:
    """The model that some steps of tuning left."""

    discrepancy: float
    kl: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Images:
    """The images that weights are corrected on, and those that only judge."""

    calibration: Tensor
    held: Tensor
    shown: Tensor


def main() -> None:
    """Print a table for each seed, and the differences over seeds."""
    options = parsed()
    torch.set_num_threads(1)
    model = load(options.model).eval()
    print(f"{options.model}, W{options.bits}A{options.bits}, {options.groups} groups; {machine()}")
    print("| seed | steps | passes | held-out discrepancy | KL | seconds | load |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found: dict[int, list[Found]] = {steps: [] for steps in options.steps}
    for seed in options.seeds:
        images = drawn(model, options.model == DIGITS, options.images, seed)
        for steps in options.steps:
            one = tried(model, images, steps, options)
            found[steps].append(one)
            passes = correction_passes(len(images.calibration), steps)
            print(
                f"| {seed} | {steps} | {passes:.0f} | {one.discrepancy:.4f} | {one.kl:.4f} "
                f"| {one.seconds:.0f} | {os.getloadavg()[0]:.1f} |",
                flush=True,
            )
    if len(options.seeds) > 1:
        compare(found)


def tried(model: nn.Module, images: Images, steps: int, options: argparse.Namespace) -> Found:
    """Correct the weights with so many steps, and judge the result."""
    scheme = SCHEMES[options.scheme]
    counts = sorted({*NUM_GROUPS, options.groups})
    candidates = igq.fit(igq.observe(model, images.calibration, scheme), counts, options.bits)
    began = perf_counter()
    made = igq.correct(model, candidates, images.calibration, options.bits, steps)
    seconds = perf_counter() - began
    chosen = candidates.select(igq.uniform(candidates.layers, options.groups))
    quantized = made.quantize(chosen)
    reference = log_probabilities(model, images.shown)
    kl = igq.evaluate(quantized, images.shown, reference).kl
    assert kl is not None  # there is a reference
    return Found(distance(rotated(model, scheme.rotation), quantized, images.held), kl, seconds)


@torch.no_grad()
def distance(full: nn.Module, quantized: nn.Module, images: Tensor) -> float:
    """Return the discrepancy on some images, a batch at a time."""
    batches = images.split(BATCH_SIZE)
    parts = [discrepancy(Targets(full, b).of(list(range(len(b)))), quantized, b) for b in batches]
    return mean(part.item() for part in parts)


def compare(found: dict[int, list[Found]]) -> None:
    """Print the differences from the most steps, paired by seed."""
    last = max(found)
    print("| steps | discrepancy | KL | KL / that of the most | KL less that of the most |")
    print("|---|---|---|---|---|")
    for steps, rows in found.items():
        pairs = list(zip(rows, found[last], strict=True))
        more = interval([one.kl - other.kl for one, other in pairs])
        share = mean(one.kl for one in rows) / mean(other.kl for _, other in pairs)
        print(
            f"| {steps} | {mean(r.discrepancy for r in rows):.4f} | {mean(r.kl for r in rows):.4f} "
            f"| {share:.3f} | {more.mean:+.4f} [{more.low:+.4f}, {more.high:+.4f}] |"
        )


def drawn(model: nn.Module, digits: bool, shown: int, seed: int) -> Images:
    """Return images of a calibration seed; those that show the KL are the same for each."""
    preprocessing = Preprocessing.of(model)
    folders = ("train1000", "val650")
    names = [DIGITS] * 2 if digits else [str(ASSETS / "images" / folder) for folder in folders]
    sources = [open_source(name, preprocessing) for name in names]
    count = (shown if digits else CALIBRATION_IMAGES) * 2
    both = draw({"calibration": (sources[0], count, count)}, seed)["calibration"].loaded()
    judged = draw({"shown": (sources[1], shown, shown)}, 0)["shown"].loaded()
    calibration, held = both.chunk(2)
    return Images(calibration, held, judged)


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = arguments_for(__doc__, images=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 15, 30, 60, 120])
    return parser.parse_args()


if __name__ == "__main__":
    main()
