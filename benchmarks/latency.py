"""Latency predicted by a table, and measured: random allocations of a deployed model.

    python -m benchmarks.latency
    python -m benchmarks.latency --model deit_small_patch16_224 --rounds 15 --read latency.json

Each allocation draws a number of groups for every layer, from a random part of those there are. The
table is measured first, by `igq profile`'s own code, or read with `--read`; then all models run in
turns, batch 1, one thread.
Weights are random: values do not change the time. The second table has what a group costs by the
table and by BOPs, as a share of the same layers with one group.
"""

import argparse
import platform
import tempfile
from pathlib import Path
from random import Random
from statistics import correlation, median

import torch

import igq
from igq import Allocation, Layer, Setting, Unit
from igq.costs import CostTable, Profile, bops_table, latency_table
from igq.runtime import deploy
from igq.runtime.probes import Probe, Shape
from igq.settings import Options
from pipeline.commands.machine.profile import (
    Effort,
    Key,
    in_turns,
    profile,
    running,
    space_of_model,
    timing_of,
)
from pipeline.data import Preprocessing
from pipeline.preparation.costs.latency import read_profile
from pipeline.study.progress import SilentDisplay
from search_spaces import SearchSpace


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a space or timm's name")
    parser.add_argument("--allocations", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", type=Path, help="a table of this model and machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = space_of_model(options.model)
    if options.read:
        made = read_profile(options.read)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path, effort = Path(folder) / "latency.json", Effort(options.rounds)
            made = profile(space, platform.node(), path, SilentDisplay(), effort)
    print(f"{made.model}, {made.machine}, torch {torch.__version__}, {options.rounds} rounds\n")
    model = igq.create(space.model.name, space.model.arguments)
    layers = igq.layers(model)
    table = latency_table(made, layers, space.scheme, space.options)
    _print_predictions(model, table, space, options)
    _print_groups(made, layers, space)


def _print_predictions(
    model: torch.nn.Module, table: CostTable, space: SearchSpace, options: argparse.Namespace
) -> None:
    """Print predicted and measured latency of random allocations."""
    draw = Random(options.seed)
    size = Preprocessing.of(model).config["input_size"]
    images = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    weight_bits, bits = space.base_bits
    observed = igq.observe(model, images, space.scheme)
    candidates = igq.fit(observed, space.num_groups, bits)
    runs: dict[Key, Probe] = {}
    allocations = {}
    for number in range(options.allocations):
        allocations[number] = _drawn(table, draw)
        quantized = igq.quantize(model, candidates.select(allocations[number]), weight_bits)
        deployed = deploy(quantized)
        runs[number] = running(deployed, images[:1])
    measured = in_turns(runs, options.rounds)
    errors = []
    print("| allocation | predicted, ms | measured, ms (spread) | error |\n" + "|---" * 4 + "|")
    for number, allocation in allocations.items():
        predicted = Unit.NANOSECONDS.metric(table.of(allocation))[1]
        timing = timing_of(measured[number])
        errors.append(abs(predicted / timing.median_ms - 1))
        print(
            f"| {number} | {predicted:.3f} | {timing.median_ms:.3f} ({timing.spread_ms:.3f}) "
            f"| {predicted / timing.median_ms - 1:+.1%} |"
        )
    print(f"\nmedian error {median(errors):.2%}, largest {max(errors):.2%}")
    costs = [float(table.of(allocation)) for allocation in allocations.values()]
    times = [median(measured[number]) for number in allocations]
    print(f"correlation of predicted and measured {correlation(costs, times):.3f}\n")


def _drawn(table: CostTable, draw: Random) -> Allocation:
    """Return a random allocation from some of the settings, so that totals differ as well."""
    most = max(len(table.layers[name]) for name in table.layers)
    low, high = sorted(draw.choices(range(most), k=2))
    offered = {name: list(row) for name, row in table.layers.items()}
    few = {name: row[low : high + 1] or row[-1:] for name, row in offered.items()}
    return Allocation.of({name: draw.choice(row) for name, row in few.items()})


def _print_groups(made: Profile, layers: tuple[Layer, ...], space: SearchSpace) -> None:
    """Print what groups add to one layer of each shape, in time and in BOPs."""
    times = latency_table(made, layers, space.scheme, space.options)
    bops = bops_table(layers, space.scheme, space.options)
    weight_bits, bits = space.base_bits
    one = bops_table(layers, space.scheme, Options((weight_bits,), (bits,), (1,)))
    groups = space.num_groups
    print("groups add, of the layer with the fewest: time / BOPs\n")
    print("| layer | " + " | ".join(map(str, groups[1:])) + " |\n" + "|---" * len(groups) + "|")
    for operator in made.operators:
        name = operator.layers[0]
        if name not in times.layers:
            continue
        kind = Shape.of(next(la for la in layers if la.name == name), space.scheme)
        few = Setting(num_groups=groups[0])
        plain = one.layers[name][Setting(num_groups=1)]
        cells = []
        for number in groups[1:]:
            setting = Setting(num_groups=number)
            time = times.layers[name].get(setting)
            share = "-" if time is None else f"{time / times.layers[name][few] - 1:+.1%}"
            more = (bops.layers[name][setting] - bops.layers[name][few]) / plain
            cells.append(f"{share} / {more:+.1%}")
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
