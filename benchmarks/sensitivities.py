"""Time and agreement of two tables of sensitivities: measured, and predicted from gradients.

    python -m benchmarks.sensitivities --images 64

Both are of the same candidates. The measured table quantizes one layer with one number of groups
at a time (Eq. 9), the predicted one takes all at once.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
from jaxtyping import Float

import igq
from benchmarks.real import SCHEMES, arguments, bench, machine
from igq.allocation import Sensitivity
from igq.evaluation import log_probabilities
from igq.quantized import fastest
from igq.sensitivities import predicted_passes, sensitivity_passes

NUM_GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
DRAWS = (1, 4, 8)


def timed(compute: Callable[[], Sensitivity]) -> tuple[Sensitivity, float]:
    """Return a table and the seconds that it took."""
    start = perf_counter()
    return compute(), perf_counter() - start


def logs(table: Sensitivity) -> Float[np.ndarray, " entries"]:
    """Return the logarithms of all entries, in order."""
    entries = [entry for row in table.values() for entry in row.values()]
    return np.log(np.array(entries, dtype=float))  # type: ignore[no-any-return]


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, images=64)
    given = bench(options)
    model, images = given.model, given.images
    candidates = given.candidates(SCHEMES[options.scheme], NUM_GROUPS, options.bits)
    limits = igq.bops(candidates, options.bits).limit(uniform=options.groups)
    start = perf_counter()
    log_probabilities(model, images)
    forward = (perf_counter() - start) / len(images)
    fast = fastest()
    measured, seconds = timed(lambda: igq.sensitivity(model, candidates, images, execution=fast))
    solved = igq.allocate(measured, limits)
    print(f"{options.model}, A{options.bits}, {options.images} images; {machine()}")
    print(
        "| sensitivities | forward passes an image, by time | as counted "
        "| correlation of logarithms | layers with the same groups |\n|---|---|---|---|---|"
    )
    counts = len(candidates.num_groups)
    counted = sensitivity_passes(model, candidates.layers, counts, len(images)) / len(images)
    print(f"| measured | {seconds / forward / len(images):.0f} | {counted:.0f} | | |")
    for draws in DRAWS:
        predict = partial(igq.predicted_sensitivity, model, candidates, images, draws)
        predicted, seconds = timed(predict)
        chosen = igq.allocate(predicted, limits)
        same = sum(chosen[name] == solved[name] for name in solved) / len(solved)
        agree = np.corrcoef(logs(measured), logs(predicted))[0, 1]
        print(
            f"| predicted, {draws} draws | {seconds / forward / len(images):.0f} | "
            f"{predicted_passes(1, len(NUM_GROUPS), draws)} | {agree:.2f} | {same:.0%} |"
        )


if __name__ == "__main__":
    main()
