"""Bits chosen with groups against groups alone, at the same BOPs.

    python -m benchmarks.mixed_bits --model vit_tiny_patch16_224 --images 1000

Groups lie side by side, wide layers are rotated. Both allocations are the integer program's, over
harms measured on the same images; the budget is that of uniform bits and groups of channels, which
is the last row. Weights are rounded. Evaluation images are others; differences are paired.
"""

from torch import Tensor, nn

import igq
from benchmarks.real import ASSETS, SIDE_BY_SIDE, arguments, bench, machine
from igq import BopsTable
from igq.correction import rounded_weights
from igq.mixed import Options, measure_parts, mixed_bops, mixed_harm, select_weights
from igq.vit import assemble
from pipeline.data import Preprocessing, draw, open_source
from pipeline.intervals import Interval, interval

BITS, GROUPS = (3, 4, 5, 6, 8), (1, 2, 4, 8, 12)
HARM_IMAGES = 16


def main() -> None:
    options = arguments(__doc__ or "", images=500)
    given = bench(options)
    model, base = igq.rotated(given.model, igq.Rotation.WIDE), (options.bits, options.bits)
    source = open_source(str(ASSETS / "images" / "train1000"), Preprocessing.of(model))
    wanted = {"calibration": (source, 32, 32), "harm": (source, HARM_IMAGES, HARM_IMAGES)}
    images = draw(wanted, options.seed)["harm"].values

    ranges = igq.observe(model, given.calibration, **SIDE_BY_SIDE)
    candidates, listed = igq.fit(ranges, GROUPS, options.bits), ranges.layers
    weights = {bits: rounded_weights(model, candidates, given.calibration, bits) for bits in BITS}
    mixed = Options(BITS, BITS, GROUPS)
    only = Options(base[:1], base[:1], GROUPS)
    table, alone = mixed_bops(listed, mixed, base), mixed_bops(listed, only, base)
    parts = measure_parts(model, candidates, weights, mixed, images)

    channels = igq.layers(given.model, assignment=igq.Assignment.NEAREST)
    uniform = igq.uniform(channels, options.groups)
    budget = igq.bops(channels, (options.groups,), *base).of(uniform)
    fitted = igq.fit(igq.observe(given.model, given.calibration), (options.groups,), options.bits)
    rounded = rounded_weights(given.model, fitted, given.calibration, options.bits)

    def chosen(costs: BopsTable, what: Options) -> nn.Module:
        allocation = costs.expand(igq.allocate(mixed_harm(costs, parts, what), costs, budget))
        picked = select_weights(weights, allocation, listed)
        return assemble(model, candidates.select(allocation), picked)

    made = {
        "groups and bits": chosen(table, mixed),
        "groups alone": chosen(alone, only),
        "uniform groups of channels": assemble(given.model, fitted.select(uniform), rounded),
    }
    scores = {
        name: igq.evaluate(quantized, given.images, given.reference, given.labels)
        for name, quantized in made.items()
    }
    print(f"{options.model}, {len(given.images)} images, budget {budget:.4g} BOPs, {machine()}")
    print("| allocation | KL | top-1 | KL, groups and bits less | top-1, groups and bits more |")
    print("|---|---|---|---|---|")
    best = scores["groups and bits"]
    for name, score in scores.items():
        kl = interval((_known(best.kls) - _known(score.kls)).tolist())
        answers = _known(best.correct).float() - _known(score.correct).float()
        top1 = interval((100 * answers).tolist())
        print(f"| {name} | {score.kl:.3f} | {score.top1:.1%} | {_shown(kl)} | {_shown(top1)} |")


def _known(values: Tensor | None) -> Tensor:
    assert values is not None  # there are labels and a reference
    return values


def _shown(known: Interval) -> str:
    return f"{known.mean:+.3f} ± {known.high - known.mean:.3f}"


if __name__ == "__main__":
    main()
