"""Ways of quantizing weights, side by side.

    python -m benchmarks.corrected_weights --model vit_tiny_patch16_224 --images 400 --seed 0
    python -m benchmarks.corrected_weights --model deit_tiny_patch16_224 --bits 3 --activations

`rounded` is the first half of `corrected`: codes for least error of the layers' outputs
(`igq.arithmetic.rounding`), before biases, normalisations and scales are tuned. `--activations`
leaves weights in full precision: whatever corrects them, it keeps about as much at most.
"""

from time import perf_counter

import igq
from benchmarks.real import SCHEMES, arguments_for, bench, machine
from igq.quantized import assemble, quantize_weights, rotated
from igq.scheme import TUNING_STEPS

CHOICES = (2, 4, 6, 8, 10, 12, 16, 24)


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__, images=400)
    parser.add_argument("--activations", action="store_true", help="by groups, weights as they are")
    options = parser.parse_args()
    given = bench(options)
    scheme = SCHEMES[options.scheme]
    candidates = given.candidates(scheme, sorted({*CHOICES, options.groups}), options.bits)
    model = rotated(given.model, scheme.rotation)
    selected = candidates.select(igq.uniform(candidates.layers, options.groups))
    print(
        f"{options.model}, W{options.bits}A{options.bits}, {options.groups} groups, "
        f"{options.images} images, calibration seed {options.seed}; {machine()}"
    )
    print("| weights | KL | top-1 kept |\n|---|---|---|")
    if options.activations:
        for groups in CHOICES:
            same = candidates.select(igq.uniform(candidates.layers, groups))
            row = given.row(f"full precision, {groups} groups", assemble(model, same, {}))
            print(row, flush=True)
        return
    print(given.row("full precision", assemble(model, selected, {})), flush=True)
    nearest = quantize_weights(model, options.bits)
    print(given.row("nearest", assemble(model, selected, nearest)), flush=True)
    for name, steps in {"rounded": 0, "corrected": TUNING_STEPS}.items():
        began = perf_counter()
        made = igq.correct(model, candidates, given.calibration, options.bits, steps)
        took = f"{name} ({perf_counter() - began:.0f} s)"
        print(given.row(took, made.quantize(selected)), flush=True)


if __name__ == "__main__":
    main()
