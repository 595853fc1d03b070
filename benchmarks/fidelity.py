"""Agreement of the fast execution with the plain float32 one on the order of allocations.

    python -m benchmarks.fidelity --images 64 --allocations 50

Quantization rounds: the last digit of a sum moves a value over a rounding edge here and there, and
twelve blocks later an image's KL is another one. So the plain quantizer is also compared with
itself on images whose every value is moved by about a millionth: that agreement is the most that
any other way of computing can reach on these images.
"""

from collections.abc import Callable
from statistics import fmean

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import igq
from benchmarks.plain import plain
from benchmarks.real import SCHEMES, arguments_for, bench, machine
from igq import Allocation
from igq.allocation import random_allocation
from igq.evaluation import divergences, log_probabilities
from igq.quantized import (
    accelerate,
    assemble,
    fastest,
    quantize_weights,
    rotated,
    set_quantizers,
)

MOVED = 1e-6
CHOICES = (2, 4, 6, 8, 10, 12, 16, 24)


def main() -> None:
    """Print how well each way agrees with the plain one."""
    parser = arguments_for(__doc__, images=64)
    parser.add_argument("--allocations", type=int, default=50)
    options = parser.parse_args()
    given = bench(options)
    scheme = SCHEMES[options.scheme]
    candidates = given.candidates(scheme, CHOICES, options.bits)
    full = rotated(given.model, scheme.rotation)
    limits = igq.bops(candidates, options.bits).limit(uniform=options.groups)
    uniform = igq.uniform(candidates.layers, options.groups)
    generator = np.random.default_rng(options.seed)
    drawn = [random_allocation(limits, generator) for _ in range(options.allocations - 1)]
    drawn.insert(0, uniform)
    weights = quantize_weights(full, options.bits)
    chosen = candidates.select(uniform)
    fast = accelerate(assemble(full, chosen, weights), fastest(), max(CHOICES))

    noise = torch.randn(given.images.shape, generator=torch.Generator().manual_seed(0))
    moved = given.images * (1 + MOVED * noise)

    def kls(model: nn.Module, images: Tensor = given.images) -> Tensor:
        return divergences(given.reference, log_probabilities(model, images))

    def plainly(allocation: Allocation) -> Tensor:
        return kls(plain(full, candidates.select(allocation), weights))

    def otherwise(allocation: Allocation) -> Tensor:
        return kls(plain(full, candidates.select(allocation), weights), moved)

    def quickly(allocation: Allocation) -> Tensor:
        set_quantizers(fast, candidates.select(allocation))
        return kls(fast)

    print(f"{options.model}, W{options.bits}A{options.bits}, {options.images} images; {machine()}")
    print("| against the plain quantizer | Kendall's tau | same best | mean KL | mean change of an "
          "allocation's KL | mean change of an image's |\n|---|---|---|---|---|---|")  # fmt: skip
    oracle = [plainly(allocation) for allocation in drawn]
    print(f"| itself | | | {_mean(oracle):.4f} | | |", flush=True)
    ways: dict[str, Callable[[Allocation], Tensor]] = {
        "itself, images moved by 1e-6": otherwise,
        f"{fastest()}": quickly,
    }
    for name, way in ways.items():
        print(_row(name, oracle, [way(allocation) for allocation in drawn]), flush=True)


def _mean(found: list[Tensor]) -> float:
    return fmean(kls.mean().item() for kls in found)


def _row(name: str, oracle: list[Tensor], found: list[Tensor]) -> str:
    expected, given = ([kls.mean().item() for kls in way] for way in (oracle, found))
    tau = kendalltau(expected, given).statistic
    changes = [abs(b / a - 1) for a, b in zip(expected, given, strict=True)]
    images = torch.stack(found) / torch.stack(oracle).clamp(min=1e-6) - 1
    same = int(np.argmin(expected)) == int(np.argmin(given))
    return (
        f"| {name} | {tau:.3f} | {'yes' if same else 'no'} | {fmean(given):.4f} "
        f"| {fmean(changes):.2%} | {images.abs().median().item():.1%} |"
    )


if __name__ == "__main__":
    main()
