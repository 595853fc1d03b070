"""Bits chosen with groups against groups alone, at the same BOPs.

Both allocations are the integer program's, over harms measured on the same images; the budget is
uniform bits and groups everywhere. Evaluation images are others; differences are paired.
"""

from collections.abc import Mapping

from torch import Tensor

import igq
from benchmarks.real import ASSETS, arguments, bench, machine
from igq.mixed import Options, measure_parts, mixed_bops, mixed_harm, select_weights
from igq.settings import Choice, Setting
from igq.vit import assemble
from pipeline.data import Preprocessing, draw, open_source
from pipeline.intervals import Interval, interval

BITS, GROUPS = (3, 4, 5, 6, 8), (2, 4, 8, 16)
HARM_IMAGES = 16


def main() -> None:
    options = arguments(__doc__ or "", images=500)
    given = bench(options)
    model, listed = given.model, igq.layers(given.model)
    source = open_source(str(ASSETS / "images" / "train1000"), Preprocessing.of(model))
    wanted = {"calibration": (source, 32, 32), "harm": (source, HARM_IMAGES, HARM_IMAGES)}
    images = draw(wanted, options.seed)["harm"].values

    candidates = igq.fit(igq.observe(model, given.calibration), GROUPS, options.bits)
    weights = {
        bits: igq.correct(model, candidates, given.calibration, bits, steps=0).weights
        for bits in BITS
    }
    mixed = Options(BITS, BITS, GROUPS)
    base = (options.bits, options.bits)
    only = Options(base[:1], base[:1], GROUPS)
    table, alone = mixed_bops(listed, mixed, base), mixed_bops(listed, only, base)
    budget = igq.bops(listed, (options.groups,), *base).of(igq.uniform(listed, options.groups))
    parts = measure_parts(model, candidates, weights, mixed, images)

    uniform = dict.fromkeys((m.name for m in listed), Setting(*base, options.groups))
    allocations: dict[str, Mapping[str, Choice]] = {
        "groups and bits": table.expand(
            igq.allocate(mixed_harm(table, parts, mixed), table, budget)
        ),
        "groups alone": alone.expand(igq.allocate(mixed_harm(alone, parts, mixed), alone, budget)),
        "uniform": uniform,
    }
    scores = {
        name: igq.evaluate(
            assemble(model, candidates.select(a), select_weights(weights, a, listed)),
            given.images,
            given.reference,
            given.labels,
        )
        for name, a in allocations.items()
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
