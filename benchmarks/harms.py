"""The harm table as measured and as predicted from gradients: what each takes, how far they agree.

    python -m benchmarks.harms --images 64

Both are of the same candidates; images are those of nips17, one layer and one number of groups at
a time in the measured table (Eq. 9), all at once in the predicted one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

import numpy as np
from jaxtyping import Float

import igq
from benchmarks.real import arguments, bench, machine
from igq.evaluation import log_probabilities
from igq.fisher import predicted_forwards
from igq.sensitivity import sensitivity_forwards
from igq.settings import Choice
from igq.vit import fastest

NUM_GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
DRAWS = (1, 4, 8)
Table = Mapping[str, Mapping[Choice, float]]


def timed(compute: Callable[[], Table]) -> tuple[Table, float]:
    """What it gives, and the seconds that it took."""
    start = perf_counter()
    return compute(), perf_counter() - start


def logs(table: Table) -> Float[np.ndarray, " harms"]:
    """Logarithms of all harms, in order."""
    harms = [harm for row in table.values() for harm in row.values()]
    return np.log(np.array(harms, dtype=float))  # type: ignore[no-any-return]


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=64)
    given = bench(options)
    model, images = given.model, given.images
    candidates = igq.fit(igq.observe(model, given.calibration), NUM_GROUPS, options.bits)
    bops = igq.bops(candidates.layers, NUM_GROUPS, options.bits, options.bits)
    budget = bops.of(igq.uniform(candidates.layers, options.groups))
    start = perf_counter()
    log_probabilities(model, images)
    forward = (perf_counter() - start) / len(images)
    fast = fastest()
    measured, seconds = timed(lambda: igq.sensitivity(model, candidates, images, execution=fast))
    solved = igq.allocate(measured, bops, budget)
    print(f"{options.model}, A{options.bits}, {options.images} images; {machine()}")
    print(
        "| harms | forward passes an image, by time | as counted | correlation of logarithms | "
        "layers with the same groups |\n|---|---|---|---|---|"
    )
    counted = sensitivity_forwards(model, candidates, len(images)) / len(images)
    print(f"| measured | {seconds / forward / len(images):.0f} | {counted:.0f} | | |")
    for draws in DRAWS:
        predict = partial(igq.predicted_sensitivity, model, candidates, images, draws)
        predicted, seconds = timed(predict)
        chosen = igq.allocate(predicted, bops, budget)
        same = sum(chosen[name] == solved[name] for name in solved) / len(solved)
        agree = np.corrcoef(logs(measured), logs(predicted))[0, 1]
        print(
            f"| predicted, {draws} draws | {seconds / forward / len(images):.0f} | "
            f"{predicted_forwards(1, len(NUM_GROUPS), draws)} | {agree:.2f} | {same:.0%} |"
        )


if __name__ == "__main__":
    main()
