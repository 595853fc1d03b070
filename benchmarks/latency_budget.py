"""A latency as the budget beside BOPs: KL of what the integer program finds, at equal latency.

    python -m benchmarks.latency_budget
    python -m benchmarks.latency_budget --images 400 --seed 1

The program first has the BOPs of `--groups` groups everywhere as its budget, then the latency that
its answer has by the table. Sensitivities are those that gradients predict on calibration images;
KL is of other images, and its difference paired by image, with one standard error. Weights take
their nearest codes. Both models, deployed, run in turns.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch

import igq
from benchmarks.real import DIGITS, arguments_for, bench, machine
from igq import Allocation, Scheme, Unit
from igq.costs import CostTable, latency_table
from igq.evaluation import divergences, log_probabilities
from igq.runtime import deploy
from igq.runtime.probes import Probe
from igq.settings import Options
from pipeline.commands.profile import Effort, Key, in_turns, profile, running, space_of_model
from pipeline.study.progress import SilentDisplay


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__, 256)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    given, bits = bench(options), options.bits
    torch.set_num_threads(1)
    space = space_of_model("demo" if options.model == DIGITS else options.model)
    with tempfile.TemporaryDirectory() as folder:
        effort = Effort(options.rounds)
        made = profile(space, "here", Path(folder) / "l.json", SilentDisplay(), effort)
    groups = space.num_groups
    candidates = given.candidates(Scheme.BEST, groups, bits)
    settings = Options(space.options.weight_bits, space.options.activation_bits, groups)
    times = latency_table(made, candidates.layers, Scheme.BEST, settings)
    sensitivity = igq.predicted_sensitivity(given.model, candidates, given.calibration)
    bops = igq.bops(candidates, bits)
    by_bops = igq.allocate(sensitivity, bops.limit(uniform=options.groups))
    by_time = igq.allocate(sensitivity, times.limit(times.of(by_bops)))
    uniform = igq.uniform(candidates.layers, options.groups)
    found = {"uniform": uniform, "BOPs": by_bops, "latency": by_time}
    quantized = {
        name: igq.quantize(given.model, candidates.select(chosen), bits)
        for name, chosen in found.items()
    }
    kls = {
        name: divergences(given.reference, log_probabilities(model, given.images))
        for name, model in quantized.items()
    }
    runs: dict[Key, Probe] = {
        number: running(deploy(model), given.images[:1])
        for number, model in enumerate(quantized.values())
    }
    seconds = in_turns(runs, options.rounds)
    print(f"{options.model}, {bits} bits, {options.images} images; {made.machine}; {machine()}\n")
    print("| budget | predicted, ms | measured, ms | BOPs | KL | less than BOPs' |")
    print("|---" * 6 + "|")
    for number, (name, chosen) in enumerate(found.items()):
        less = kls["BOPs"] - kls[name]
        error = less.std() / len(less) ** 0.5
        print(
            f"| {name} | {_ms(times, chosen):.3f} | {1e3 * median(seconds[number]):.3f} "
            f"| {bops.of(chosen):.3e} | {kls[name].mean():.4f} "
            f"| {less.mean():+.4f} ± {error:.4f} |"
        )


def _ms(table: CostTable, allocation: Allocation) -> float:
    return Unit.NANOSECONDS.metric(table.of(allocation))[1]


if __name__ == "__main__":
    main()
