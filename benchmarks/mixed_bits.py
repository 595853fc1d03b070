"""Bits chosen with groups against groups alone, at the same BOPs.

    python -m benchmarks.mixed_bits --model vit_tiny_patch16_224 --images 1000

Both allocations are the integer program's, over sensitivities measured on half of the calibration
images; the budget is that of uniform bits and groups in the paper's scheme, which is the last row.
Weights are rounded. Differences are paired.
"""

from torch import Tensor, nn

import igq
from benchmarks.real import SCHEMES, arguments, bench, machine
from igq import Limits, Options, Scheme
from igq.correction import rounded_weights
from igq.costs import bops_table, tie_layers
from igq.quantized import assemble, rotated, select_weights
from igq.sensitivities import composed_sensitivity, measure_parts
from pipeline.intervals import Interval, interval

BITS, GROUPS = (3, 4, 5, 6, 8), (1, 2, 4, 8, 12)
SENSITIVITY_IMAGES = 16


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, images=500)
    given, scheme = bench(options), SCHEMES[options.scheme]
    base = (options.bits, options.bits)
    images = given.calibration[:SENSITIVITY_IMAGES]
    candidates = given.candidates(scheme, GROUPS, options.bits)
    model, listed = rotated(given.model, scheme.rotation), candidates.layers
    weights = {bits: rounded_weights(model, candidates, given.calibration, bits) for bits in BITS}
    searched = Options(BITS, BITS, GROUPS)
    only = Options(base[:1], base[:1], GROUPS)
    parts = measure_parts(model, candidates, weights, searched, images)

    fitted = given.candidates(Scheme.PAPER, (options.groups,), options.bits)
    uniform = igq.uniform(fitted.layers, options.groups)
    budget = igq.bops(fitted, options.bits).of(uniform)
    rounded = rounded_weights(given.model, fitted, given.calibration, options.bits)

    def chosen(settings: Options) -> nn.Module:
        ties = tie_layers(listed, settings)
        table = bops_table(listed, scheme, settings, base)
        limits = Limits((igq.Limit(table, budget),), ties)
        sensitivity = (
            composed_sensitivity(ties, table, parts, settings)
            if settings.searches_bits
            else igq.sensitivity(given.model, candidates, images)
        )
        allocation = limits.expand(igq.allocate(sensitivity, limits))
        four = {bits: weights[bits] for bits in settings.weight_bits}
        picked = select_weights(four, allocation, listed)
        return assemble(model, candidates.select(allocation), picked)

    made = {
        "groups and bits": chosen(searched),
        "groups alone": chosen(only),
        "uniform groups of channels": assemble(given.model, fitted.select(uniform), rounded),
    }
    scores = {
        name: igq.evaluate(quantized, given.images, given.reference, given.labels)
        for name, quantized in made.items()
    }
    print(f"{options.model}, {len(given.images)} images, budget {budget:.4g} BOPs, {machine()}")
    print("| allocation | KL | top-1 | difference in KL (groups and bits minus this) "
          "| top-1 gain (points) |\n|---|---|---|---|---|")  # fmt: skip
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
