"""How long a sampler takes for a proposal, in a study of many layers and trials.

    python -m benchmarks.proposal_time [--trials 5000] [--depth 12] [--images 64]

The study is in memory: what the journal takes is no sampler's. Then, what a proposal's program
takes: the integer program of `igq.allocate` beside its relaxation.
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

import igq
from benchmarks.real import machine
from igq.settings import Choice
from pipeline.budget import Budgets, least_harm, random_allocation
from pipeline.config import Sampler
from pipeline.memory import Space
from pipeline.samplers import make_sampler

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
PROPOSALS, PROGRAMS = 20, 10


def study_of(space: Space, budget: int, options: argparse.Namespace) -> optuna.Study:
    """A study with many complete trials."""
    generator = np.random.default_rng(0)
    study = optuna.create_study()
    for _ in range(options.trials):
        allocation = random_allocation(space.bops, budget, generator)
        kls = generator.lognormal(size=options.images).tolist()
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=float(np.mean(kls)),
                params=space.encode(allocation),
                distributions=dict(space.distributions),
                user_attrs={"kls": kls},
            )
        )
    return study


def programs(space: Space, budget: int) -> None:
    """Print how long either takes for worths that nearly tie, and how far their answers differ."""
    generator, times, worse = np.random.default_rng(0), [], []
    costs = space.array(lambda name, groups: space.bops.layers[name][groups], np.inf)
    for _ in range(PROGRAMS):
        worths = generator.normal(0.02, 0.03, len(space.choices))
        harm = worths[:, None] / np.array(GROUPS)
        table: dict[str, dict[Choice, float]] = {
            name: dict(zip(GROUPS, row.tolist(), strict=True))
            for name, row in zip(space.choices, harm, strict=True)
        }
        start = perf_counter()
        exact = igq.allocate(table, space.bops, budget)
        middle = perf_counter()
        relaxed = least_harm(harm, costs, budget - space.bops.fixed)
        times.append((1e3 * (middle - start), 1e3 * (perf_counter() - middle)))
        least = sum(table[name][groups] for name, groups in exact.items())
        worse.append(float(harm[np.arange(len(harm)), relaxed].sum()) - least)
    print("\n| program | median, ms | most, ms |\n|---|---|---|")
    for name, column in zip(("igq.allocate", "least_harm"), zip(*times, strict=True), strict=True):
        print(f"| {name} | {median(column):.1f} | {max(column):.1f} |")
    print(f"\nThe relaxation's harm is above the least by {max(worse):.1e}, at most.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--depth", type=int, default=12, help="blocks, of 5 layers each")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    layers = igq.layers(igq.create("vit_tiny_patch16_224", {"depth": options.depth}))
    table = igq.bops(layers, GROUPS, weight_bits=4, activation_bits=4)
    space, budget = Space(table), table.of(igq.uniform(layers, 8))
    study = study_of(space, budget, options)
    print(
        f"{machine()}; {options.trials} trials, {len(table.layers)} layers, {options.images} images"
    )
    print("| sampler | first, ms | median, ms | most, ms |\n|---|---|---|---|")
    for kind in Sampler:
        study.sampler = make_sampler(kind, space, Budgets(budget, budget), seed=0)
        times = []
        for _ in range(PROPOSALS):
            start = perf_counter()
            study.ask(dict(space.distributions))
            times.append(1e3 * (perf_counter() - start))
        first, *later = times
        print(f"| {kind} | {first:.0f} | {median(later):.0f} | {max(later):.0f} |")
    programs(space, budget)


if __name__ == "__main__":
    main()
