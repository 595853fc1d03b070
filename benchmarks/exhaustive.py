"""The best of all allocations of a small space, beside that of the integer program.

    python -m benchmarks.exhaustive --model vit_tiny_patch16_224 --images 256

Layers of a kind share their number of groups, so that few allocations spend the whole budget of
uniform groups: those to which nothing can be added. The best of all on the very images that it was
chosen on is a bound that no search can pass. Chosen on one half of the images and judged on the
other, it is the most to hope for.
"""

from itertools import pairwise, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import igq
from benchmarks.real import SCHEMES, arguments, bench, machine
from igq import Allocation, Limits, Options, Tie
from igq.costs import bops_table, tie_layers
from igq.evaluation import divergences, log_probabilities
from igq.quantized import accelerate, fastest, rotated, set_quantizers
from pipeline.intervals import interval

CHOICES = (1, 2, 4, 8, 12, 24)
SPLITS = 200


def spending(limits: Limits) -> list[Allocation]:
    """Return the allocations within the budget to which nothing can be added."""
    names = limits.names

    def allocation(choices: tuple[int, ...]) -> Allocation:
        return Allocation.of(dict(zip(names, choices, strict=True)))

    every = product(CHOICES, repeat=len(names))
    within = {choices for choices in every if limits.fits(allocation(choices))}

    def grown(choices: tuple[int, ...]) -> list[tuple[int, ...]]:
        more = dict(pairwise(CHOICES))
        each = enumerate(choices)
        return [(*choices[:i], more[c], *choices[i + 1 :]) for i, c in each if c in more]

    whole = sorted(choices for choices in within if within.isdisjoint(grown(choices)))
    return [allocation(choices) for choices in whole]


def judged(kls: Float[Tensor, "allocations images"]) -> Float[np.ndarray, " splits"]:
    """Return the KL on one half of the images of the best on the other, for random halves."""
    generator, found = np.random.default_rng(0), []
    for _ in range(SPLITS):
        order = generator.permutation(kls.shape[1])
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        found.append(kls[kls[:, one].mean(1).argmin(), other].mean().item())
    return np.array(found)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, images=256)
    given = bench(options)
    scheme = SCHEMES[options.scheme]
    candidates = given.candidates(scheme, CHOICES, options.bits)
    model = rotated(given.model, scheme.rotation)
    choices = Options((options.bits,), (options.bits,), CHOICES)
    ties = tie_layers(candidates.layers, choices, Tie.KIND)
    table = bops_table(candidates.layers, scheme, choices, tie=Tie.KIND)
    uniform = Allocation.of(dict.fromkeys(ties, options.groups))
    limits = Limits((igq.Limit(table, table.of(uniform)),), ties)
    whole = spending(limits)
    sensitivity = igq.sensitivity(model, candidates, given.calibration, execution=fastest())
    solved = igq.allocate(ties.sum(sensitivity), limits)
    corrected = igq.correct(model, candidates, given.calibration, options.bits)
    chosen = candidates.select(limits.expand(uniform))
    made = accelerate(corrected.quantize(chosen), fastest(), max(CHOICES))

    def kls(allocation: Allocation) -> Tensor:
        set_quantizers(made, candidates.select(limits.expand(allocation)))
        return divergences(given.reference, log_probabilities(made, given.images))

    every = torch.stack([kls(allocation) for allocation in whole])
    first, mine = kls(solved), kls(uniform)
    best = int(every.mean(1).argmin())
    print(
        f"{options.model}, W{options.bits}A{options.bits}, budget of {options.groups} groups, "
        f"{len(whole)} allocations, {len(given.images)} images; {machine()}"
    )
    print(f"integer program {solved}\nbest {whole[best]}")
    print("| allocation | KL | difference (this minus the integer program's, 95 %) |")
    print("|---|---|---|")
    rows = {"integer program": first, "uniform": mine, "best on these images": every[best]}
    for name, row in rows.items():
        less = interval((row - first).tolist())
        print(f"| {name} | {row.mean():.4f} | {less.mean:+.4f} ± {less.high - less.mean:.4f} |")
    halves = judged(every)
    print(f"| best on one half, judged on the other | {halves.mean():.4f} | |")
    print(f"| mean of all, and worst | {every.mean():.4f}, {every.mean(1).max():.4f} | |")


if __name__ == "__main__":
    main()
