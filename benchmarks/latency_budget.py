"""A latency as the budget beside BOPs: KL of what the integer program finds, at equal latency.

    python -m benchmarks.latency_budget
    python -m benchmarks.latency_budget --seeds 0 1 2 --read latency.json --write found.json
    python -m benchmarks.latency_budget --measure found.json --rounds 100

The program first has the BOPs of `--groups` groups everywhere as its budget, then the latency that
its answer has by the table. Sensitivities are those that gradients predict on calibration images,
which a seed draws; KL is of other images, and its difference paired by image, with one standard
error. Weights take their nearest codes. All models, deployed, run in turns: at once, or later and
alone (`--measure`), as values do not change the time.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import DIGITS, Bench, arguments_for, bench, machine
from igq import Allocation, Scheme, Unit
from igq.costs import CostTable, Profile, latency_table
from igq.evaluation import divergences, log_probabilities
from igq.runtime import deploy
from igq.runtime.probes import Probe
from igq.settings import Options, plain
from pipeline.commands.machine.profile import (
    Effort,
    Key,
    in_turns,
    profile,
    running,
    space_of_model,
)
from pipeline.preparation.costs.latency import read_profile
from pipeline.study.progress import SilentDisplay


@dataclass(frozen=True)
class Found:
    """An allocation with what is known of it."""

    model: str
    seed: int
    budget: str
    allocation: Mapping[str, int | str]
    predicted_ms: float
    bops: int
    kl: float
    less: float
    """KL of BOPs' allocation less this one's: mean over images."""
    error: float
    """One standard error of that."""


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__, 256)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", help="[default: --seed]")
    parser.add_argument("--read", type=Path, help="a latency table of this machine")
    parser.add_argument("--write", type=Path, help="allocations to measure later")
    parser.add_argument("--measure", type=Path, nargs="+", help="allocations to measure now")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        found = [Found(**one) for path in options.measure for one in json.loads(path.read_text())]
    else:
        made = _table(options)
        print(f"{options.model}, {options.bits} bits, {options.images} images; {made.machine}; "
              f"{machine()}\n")  # fmt: skip
        found = [
            one for seed in options.seeds or [options.seed] for one in _of(options, made, seed)
        ]
    if options.write:
        options.write.write_text(json.dumps([vars(one) for one in found], indent=1) + "\n")
        _print(found, {})
    else:
        _print(found, _measured(found, options))


def _table(options: argparse.Namespace) -> Profile:
    """Return the latency table that is given, or measure one."""
    if options.read:
        return read_profile(options.read)
    space = space_of_model("demo" if options.model == DIGITS else options.model)
    with tempfile.TemporaryDirectory() as folder:
        effort = Effort(options.rounds)
        return profile(space, "here", Path(folder) / "l.json", SilentDisplay(), effort)


def _of(options: argparse.Namespace, made: Profile, seed: int) -> list[Found]:
    """Return what each budget finds, with calibration images of this seed."""
    given = bench(argparse.Namespace(**{**vars(options), "seed": seed}))
    space = space_of_model("demo" if options.model == DIGITS else options.model)
    candidates = given.candidates(Scheme.BEST, space.num_groups, options.bits)
    few = Options(space.options.weight_bits, space.options.activation_bits, space.num_groups)
    times = latency_table(made, candidates.layers, Scheme.BEST, few)
    sensitivity = igq.predicted_sensitivity(given.model, candidates, given.calibration)
    bops = igq.bops(candidates, options.bits)
    by_bops = igq.allocate(sensitivity, bops.limit(uniform=options.groups))
    by_time = igq.allocate(sensitivity, times.limit(times.of(by_bops)))
    uniform = igq.uniform(candidates.layers, options.groups)
    chosen = {"BOPs": by_bops, "latency": by_time, "uniform": uniform}
    kls = {
        name: _kl(given, igq.quantize(given.model, candidates.select(one), options.bits))
        for name, one in chosen.items()
    }
    rows = []
    for name, one in chosen.items():
        less = kls["BOPs"] - kls[name]
        spread = float(less.std() / len(less) ** 0.5)
        kl = float(kls[name].mean()), float(less.mean()), spread
        costs = _ms(times, one), int(bops.of(one))
        rows.append(Found(options.model, seed, name, plain(one), *costs, *kl))
    return rows


def _kl(given: Bench, model: nn.Module) -> Tensor:
    return divergences(given.reference, log_probabilities(model, given.images))


def _measured(found: list[Found], options: argparse.Namespace) -> dict[int, float]:
    """Return the milliseconds of each allocation; all take turns."""
    runs: dict[Key, Probe] = {}
    for number, one in enumerate(found):
        space = space_of_model("demo" if one.model == DIGITS else one.model)
        model = igq.create(space.model.name, space.model.arguments)
        patches: Any = model.patch_embed
        images = torch.rand(2, patches.proj.in_channels, *patches.img_size)
        chosen = Allocation.of(one.allocation)
        needed = sorted({setting.num_groups or 1 for setting in chosen.values()})
        observed = igq.observe(model, images, Scheme.BEST)
        candidates = igq.fit(observed, needed, options.bits)
        quantized = igq.quantize(model, candidates.select(chosen), options.bits)
        runs[number] = running(deploy(quantized), images[:1])
    seconds = in_turns(runs, options.rounds)
    return {number: 1e3 * median(seconds[number]) for number in range(len(found))}


def _print(found: list[Found], measured: Mapping[int, float]) -> None:
    print("| model | seed | budget | predicted, ms | measured, ms | BOPs | KL | less than BOPs' |")
    print("|---" * 8 + "|")
    for number, one in enumerate(found):
        ms = f"{measured[number]:.3f}" if number in measured else ""
        print(
            f"| {one.model} | {one.seed} | {one.budget} | {one.predicted_ms:.3f} | {ms} "
            f"| {one.bops:.3e} | {one.kl:.4f} | {one.less:+.4f} ± {one.error:.4f} |"
        )


def _ms(table: CostTable, allocation: Allocation) -> float:
    return Unit.NANOSECONDS.metric(table.of(allocation))[1]


if __name__ == "__main__":
    main()
