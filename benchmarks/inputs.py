"""Groupings of linear inputs and softmax maps, and rotations, side by side.

    python -m benchmarks.inputs --model vit_tiny_patch16_224 --images 400
    python -m benchmarks.inputs --model deit_tiny_patch16_224 --bits 3 --corrected --rows 0 6

Numbers of groups are uniform: `--groups` in softmax maps, those of the table in linear inputs.
Differences are paired with the first row, with one standard error. Weights are in full precision,
or corrected.
"""

import torch
from torch import Tensor

import igq
from benchmarks.real import arguments_for, bench, machine
from igq import Allocation, InputMethod, Rotation, Scheme, SoftmaxMethod
from igq.evaluation import divergences, log_probabilities, logit_mse
from igq.quantized import assemble, rotated

CHANNELS, TOKENS = InputMethod.CHANNELS, InputMethod.TOKENS
ROWS, KEYS = SoftmaxMethod.UNIT_ROWS, SoftmaxMethod.KEYS
WAYS = (
    (CHANNELS, ROWS, Rotation.NONE, 8),
    (TOKENS, ROWS, Rotation.NONE, 4),
    (TOKENS, ROWS, Rotation.NONE, 8),
    (TOKENS, ROWS, Rotation.WIDE, 1),
    (TOKENS, ROWS, Rotation.WIDE, 4),
    (TOKENS, ROWS, Rotation.WIDE, 6),
    (TOKENS, ROWS, Rotation.WIDE, 8),
    (TOKENS, ROWS, Rotation.ALL, 1),
    (TOKENS, ROWS, Rotation.ALL, 4),
    (TOKENS, ROWS, Rotation.ALL, 8),
    (CHANNELS, KEYS, Rotation.NONE, 8),
    (TOKENS, KEYS, Rotation.WIDE, 4),
    (TOKENS, KEYS, Rotation.WIDE, 8),
    (TOKENS, KEYS, Rotation.ALL, 8),
)
"""Groupings of linear inputs and softmax maps, the rotation, and the number of groups."""


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__, images=400)
    parser.add_argument("--corrected", action="store_true", help="quantize weights too")
    parser.add_argument("--rows", type=int, nargs="+", help="rows of the table to make, from 0")
    options = parser.parse_args()
    given, bits = bench(options), options.bits
    right = (given.reference.argmax(-1) == given.labels).double().mean()
    print(f"{options.model}, A{bits}, corrected weights: {options.corrected}, seed {options.seed}")
    print(f"{options.images} images; {machine()}")
    print("| inputs | maps | rotated | groups | BOPs | KL | difference in KL | difference in "
          "log logit MSE | top-1 kept |\n" + "|---" * 9 + "|")  # fmt: skip
    base = None
    for inputs, softmax, rotation, groups in (
        WAYS[row] for row in options.rows or range(len(WAYS))
    ):
        scheme = Scheme(inputs, softmax, rotation=rotation)
        candidates = given.candidates(scheme, sorted({groups, options.groups}), bits)
        allocation = Allocation.of(
            {
                layer.name: groups if layer.weighted else options.groups
                for layer in igq.grouped(candidates.layers)
            }
        )
        selected = candidates.select(allocation)
        if options.corrected:
            corrected = igq.correct(given.model, candidates, given.calibration, bits)
            quantized = corrected.quantize(selected)
        else:
            quantized = assemble(rotated(given.model, rotation), selected, {})
        found = log_probabilities(quantized, given.images)
        kl = divergences(given.reference, found)
        change = logit_mse(given.reference, found).log()
        base = base or (kl, change)
        kept = (found.argmax(-1) == given.labels).double().mean() / right
        cost = igq.bops(candidates, bits).of(allocation)
        print(
            f"| {inputs} | {softmax} | {rotation} | {groups} | {cost:.3e} | {kl.mean():.3f} "
            f"| {_difference(kl, base[0])} | {_difference(change, base[1])} | {kept:.3f} |",
            flush=True,
        )


def _difference(one: Tensor, other: Tensor) -> str:
    """Return the mean of paired differences with its standard error."""
    each = (one - other).to(torch.float64)
    return f"{each.mean():+.3f} ± {each.std() / len(each) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
