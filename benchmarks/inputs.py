"""What the groups of linear inputs and softmax maps are of, what a rotation does, at what cost.

    python -m benchmarks.inputs --model vit_tiny_patch16_224 --images 400
    python -m benchmarks.inputs --model deit_tiny_patch16_224 --bits 3 --corrected --rows 0 6

Uniform numbers of groups, softmax maps with `--groups`; differences are paired with the first
row's, with one standard error. Weights are in full precision, or corrected.
"""

import igq
from benchmarks.real import arguments_for, bench, machine
from igq import Assignment, Rotation, Slices
from igq.evaluation import divergences, log_probabilities, paired_difference, shifts
from igq.vit import assemble

CHANNELS, TOKENS = Slices.CHANNELS, Slices.TOKEN_GROUPS
ROWS, KEYS = Slices.UNIT_ROWS, Slices.KEY_GROUPS
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
"""What groups are of, in linear inputs and softmax maps; what is rotated; how many groups."""


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__ or "", images=400)
    parser.add_argument("--corrected", action="store_true", help="quantize weights too")
    parser.add_argument(
        "--rows", type=int, nargs="+", help="of the table, from 0; the rest is left"
    )
    options = parser.parse_args()
    given, bits = bench(options), options.bits
    labelled = (given.reference.argmax(-1) == given.labels).double().mean()
    print(f"{options.model}, A{bits}, corrected weights: {options.corrected}, seed {options.seed}")
    print(f"{options.images} images; {machine()}")
    print("| inputs | maps | rotated | groups | BOPs | KL | less | log shift, less | top-1 kept |")
    print("|---|---|---|---|---|---|---|---|---|")

    base = None
    for slices, softmax, rotation, groups in (
        WAYS[row] for row in options.rows or range(len(WAYS))
    ):
        model = igq.rotated(given.model, rotation)
        ranges = igq.observe(model, given.calibration, softmax=softmax, inputs=slices)
        candidates = igq.fit(ranges, sorted({groups, options.groups}), bits)
        linear = {layer.name for layer in candidates.layers if layer.weighted}
        allocation = {
            layer.name: groups if layer.name in linear else options.groups
            for layer in igq.grouped(candidates.layers)
        }
        listed = igq.layers(model, softmax, Assignment.NEAREST, slices)
        bops = igq.bops(listed, sorted({groups, options.groups}), bits, bits).of(allocation)
        if options.corrected:
            made = igq.correct(model, candidates, given.calibration, bits)
            quantized = assemble(made.model, candidates.select(allocation), made.weights)
        else:
            quantized = assemble(model, candidates.select(allocation), {})
        found = log_probabilities(quantized, given.images)
        kl = divergences(given.reference, found)
        shift = shifts(given.reference, found).log()
        base = base or (kl, shift)
        less, closer = (paired_difference(a, b) for a, b in zip((kl, shift), base, strict=True))
        kept = (found.argmax(-1) == given.labels).double().mean() / labelled
        print(
            f"| {slices.value} | {softmax.value} | {rotation} | {groups} | {bops:.3e} "
            f"| {kl.mean():.3f} | {less.mean:+.3f} ± {less.standard_error:.3f} "
            f"| {closer.mean:+.3f} ± {closer.standard_error:.3f} | {kept:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
