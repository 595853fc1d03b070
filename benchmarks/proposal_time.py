"""How long a sampler takes for a proposal, in a study of many layers and trials.

    python -m benchmarks.proposal_time [--trials 5000] [--layers 60] [--images 64]

The study is in memory: what the journal takes is no sampler's.
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

import igq
from benchmarks.real import machine
from igq.layers import Layer, Slices
from pipeline.budget import random_allocation
from pipeline.config import Sampler
from pipeline.samplers import Space, make_sampler

GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
PROPOSALS = 20


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    layers = [
        Layer(f"fc{i}", Slices.CHANNELS, tokens=197, channels=192, outputs=576, weighted=True)
        for i in range(options.layers)
    ]
    table = igq.bops(layers, GROUPS, weight_bits=4, activation_bits=4)
    space, budget = Space(table), table.of({layer.name: 8 for layer in layers})
    study = study_of(space, budget, options)
    print(f"{machine()}; {options.trials} trials, {options.layers} layers, {options.images} images")
    print("| sampler | first, ms | median, ms | most, ms |\n|---|---|---|---|")
    for kind in Sampler:
        study.sampler = make_sampler(kind, space, budget, seed=0)
        times = []
        for _ in range(PROPOSALS):
            start = perf_counter()
            study.ask(dict(space.distributions))
            times.append(1e3 * (perf_counter() - start))
        first, *later = times
        print(f"| {kind} | {first:.0f} | {median(later):.0f} | {max(later):.0f} |")


if __name__ == "__main__":
    main()
