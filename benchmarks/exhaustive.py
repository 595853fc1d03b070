"""How good the best allocation of a small space is: all of them, on the same images.

    python -m benchmarks.exhaustive --model vit_tiny_patch16_224 --images 256

Groups lie side by side, and wide layers are rotated, as in a search space. Layers of a kind share
their number of groups, so that few allocations spend the whole budget of uniform groups: those to
which nothing can be added. The best of all on the very images that it was chosen on is a bound that
no search can pass; chosen on one half and judged on the other, it is what one could hope for.
"""

from itertools import pairwise, product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import igq
from benchmarks.real import SIDE_BY_SIDE, arguments, bench, machine
from igq import Allocation, BopsTable
from igq.cost import tie
from igq.evaluation import divergences, log_probabilities
from igq.layers import Tie, tied
from igq.vit import accelerate, assemble, fastest, set_quantizers
from pipeline.intervals import interval

CHOICES = (1, 2, 4, 8, 12, 24)
SPLITS = 200


def spending(table: BopsTable, budget: int) -> list[Allocation]:
    """The allocations within the budget to which nothing can be added."""
    names = list(table.layers)
    within = {
        choices
        for choices in product(CHOICES, repeat=len(names))
        if table.of(dict(zip(names, choices, strict=True))) <= budget
    }

    def grown(choices: tuple[int, ...]) -> list[tuple[int, ...]]:
        more = dict(pairwise(CHOICES))
        each = enumerate(choices)
        return [(*choices[:i], more[c], *choices[i + 1 :]) for i, c in each if c in more]

    whole = sorted(choices for choices in within if within.isdisjoint(grown(choices)))
    return [Allocation.of(dict(zip(names, choices, strict=True))) for choices in whole]


def judged(kls: Float[Tensor, "allocations images"]) -> Float[np.ndarray, " splits"]:
    """Mean KL on one half of the images of what is best on the other, over random halves."""
    generator, found = np.random.default_rng(0), []
    for _ in range(SPLITS):
        order = generator.permutation(kls.shape[1])
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        found.append(kls[kls[:, one].mean(1).argmin(), other].mean().item())
    return np.array(found)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=256)
    given = bench(options)
    model = igq.rotated(given.model, igq.Rotation.WIDE)
    ranges = igq.observe(model, given.calibration, **SIDE_BY_SIDE)
    candidates = igq.fit(ranges, CHOICES, options.bits)
    ties = tied(candidates.layers, Tie.KIND)
    table = igq.bops(candidates.layers, CHOICES, options.bits, options.bits).tied(ties)
    uniform = Allocation.of(dict.fromkeys(table.layers, options.groups))
    budget = table.of(uniform)
    whole = spending(table, budget)
    harm = igq.sensitivity(model, candidates, given.calibration, execution=fastest())
    solved = Allocation.of(igq.allocate(tie(harm, ties), table, budget))
    corrected = igq.correct(model, candidates, given.calibration, options.bits)
    chosen = candidates.select(table.expand(uniform))
    made = accelerate(assemble(corrected.model, chosen, corrected.weights), fastest(), max(CHOICES))

    def kls(allocation: Allocation) -> Tensor:
        set_quantizers(made, candidates.select(table.expand(allocation)))
        return divergences(given.reference, log_probabilities(made, given.images))

    every = torch.stack([kls(allocation) for allocation in whole])
    first, mine = kls(solved), kls(uniform)
    best = int(every.mean(1).argmin())
    print(
        f"{options.model}, W{options.bits}A{options.bits}, budget of {options.groups} groups, "
        f"{len(whole)} allocations, {len(given.images)} images; {machine()}"
    )
    print(f"integer program {dict(solved)}\nbest {dict(whole[best])}")
    print("| allocation | KL | less the integer program's (95 %) |\n|---|---|---|")
    rows = {"integer program": first, "uniform": mine, "best on these images": every[best]}
    for name, row in rows.items():
        less = interval((row - first).tolist())
        print(f"| {name} | {row.mean():.4f} | {less.mean:+.4f} ± {less.high - less.mean:.4f} |")
    halves = judged(every)
    print(f"| best on one half, judged on the other | {halves.mean():.4f} | |")
    print(f"| mean of all, and worst | {every.mean():.4f}, {every.mean(1).max():.4f} | |")


if __name__ == "__main__":
    main()
