"""Time of a sampler for a proposal, in a study of many layers and trials.

    python -m benchmarks.proposal_time [--trials 5000] [--depth 12] [--images 64]

The study is in memory: the journal's time belongs to no sampler. Then the time of a proposal's
program: the integer program of `igq.allocate` beside its relaxation.
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

import igq
from benchmarks.real import machine
from igq import Limits, Options, Setting
from igq.allocation import random_allocation, relaxed
from igq.costs import bops_table
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.samplers import SAMPLERS
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
PROPOSALS, PROGRAMS = 20, 10


def study_of(encoding: Encoding, limits: Limits, options: argparse.Namespace) -> optuna.Study:
    """Return a study with many complete trials."""
    generator = np.random.default_rng(0)
    study = optuna.create_study()
    for _ in range(options.trials):
        allocation = random_allocation(limits, generator)
        kls = generator.lognormal(size=options.images).tolist()
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=float(np.mean(kls)),
                params=encoding.encode(allocation),
                distributions=dict(encoding.distributions),
                user_attrs={"kls": kls},
            )
        )
    return study


def programs(limits: Limits) -> None:
    """Print the time of both programs for effects that nearly tie, and how their answers differ."""
    generator, times, worse = np.random.default_rng(0), [], []
    table, settings = limits.table, [Setting(num_groups=groups) for groups in GROUPS]
    costs = np.array([[table.cost(name, s) for s in settings] for name in limits.names], float)
    for _ in range(PROGRAMS):
        effects = generator.normal(0.02, 0.03, len(limits.names))
        loss = effects[:, None] / np.array(GROUPS)
        sensitivity = {
            name: dict(zip(settings, row.tolist(), strict=True))
            for name, row in zip(limits.names, loss, strict=True)
        }
        start = perf_counter()
        exact = igq.allocate(sensitivity, limits)
        middle = perf_counter()
        places = relaxed(loss, costs, limits.budget - table.fixed)
        times.append((1e3 * (middle - start), 1e3 * (perf_counter() - middle)))
        least = sum(sensitivity[name][setting] for name, setting in exact.items())
        worse.append(float(loss[np.arange(len(loss)), places].sum()) - least)
    print("\n| program | median, ms | most, ms |\n|---|---|---|")
    for name, column in zip(("allocate", "relaxed"), zip(*times, strict=True), strict=True):
        print(f"| {name} | {median(column):.1f} | {max(column):.1f} |")
    print(f"\nThe relaxation's loss is above the least by {max(worse):.1e}, at most.")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--depth", type=int, default=12, help="blocks, of 5 layers each")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    layers = igq.layers(igq.create("vit_tiny_patch16_224", {"depth": options.depth}))
    limits = bops_table(layers, igq.Scheme.PAPER, Options((4,), (4,), GROUPS)).limit(uniform=8)
    encoding = Encoding(limits)
    study = study_of(encoding, limits, options)
    print(
        f"{machine()}; {options.trials} trials, {len(limits.names)} layers, {options.images} images"
    )
    print("| sampler | first, ms | median, ms | most, ms |\n|---|---|---|---|")
    schedule = BudgetSchedule(limits.budget, limits.budget)
    for kind in Sampler:
        study.sampler = SAMPLERS[kind](encoding, schedule, 0)
        times = []
        for _ in range(PROPOSALS):
            start = perf_counter()
            study.ask(dict(encoding.distributions))
            times.append(1e3 * (perf_counter() - start))
        first, *later = times
        print(f"| {kind} | {first:.0f} | {median(later):.0f} | {max(later):.0f} |")
    programs(limits)


if __name__ == "__main__":
    main()
