"""The number of search images at an equal number of image-forward-passes.

    python -m benchmarks.search_images --space demo --images 32 96 288 --seeds 8

The pool of images is the same: the final round has those that the search leaves. More search
images mean fewer trials. Printed for each number: the rank correlation of search KL and unseen KL
over complete trials, and the unseen KL of the trial that is best on the search images and of the
final round's winner.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

import pipeline
import search_spaces
from benchmarks.final_round import observed
from benchmarks.real import machine
from pipeline.files import read_json, write_json
from pipeline.intervals import interval
from pipeline.preparation.prepare import prepare
from pipeline.preparation.purposes import VALIDATION
from pipeline.preparation.study import Study
from pipeline.study.best import completed
from pipeline.study.progress import SilentDisplay

RANKED = 16
"""Complete trials within the budget whose ranks are compared, evenly spread over all ranks."""


@dataclass(frozen=True)
class Outcome:
    """A study's ends on unseen images: KLs in nats."""

    correlation: float
    best: float
    """KL of the trial of least KL on the search images."""
    winner: float
    """KL of the final round's winner."""


def outcome(request: pipeline.Request) -> Outcome:
    """Run a search, or read what an earlier run found."""
    path = request.out.with_suffix(".json")
    if not path.exists():
        write_json(path, vars(_searched(request)))
    return Outcome(**read_json(path))


def _searched(request: pipeline.Request) -> Outcome:
    silent = SilentDisplay()
    request = replace(request, resume=request.out.exists())
    result = pipeline.run(request, pipeline.InProcess(), pipeline.InMemoryTracker(), silent)
    study = Study.create(replace(request, resume=True), silent)
    preparation, ranked = prepare(study, silent), completed(result.trials, study.budget)
    places = np.linspace(0, len(ranked) - 1, min(RANKED, len(ranked))).round().astype(int)
    few = [result.best, *(ranked[place] for place in places)]
    seen = observed(preparation, few, study.images[VALIDATION])
    winner, *unseen = (one.kl for one in seen)
    correlation = spearmanr([trial.kl for trial in few[1:]], unseen).statistic
    return Outcome(float(correlation), unseen[0], winner)


def main() -> None:
    """Print a row for each number of search images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="demo")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pool")
    parser.add_argument("--validation")
    parser.add_argument("--images", type=int, nargs="+", default=[32, 96, 288])
    parser.add_argument("--passes", type=int, default=64 * 96, help="as if no trial was pruned")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("studies/search-images"))
    options = parser.parse_args()
    space = search_spaces.load(options.space)
    print(f"{options.space}, {options.passes} passes, seeds 0 to {options.seeds - 1}; {machine()}")
    print("| search images | trials | rank correlation | best on search images | winner |")
    print("|---|---|---|---|---|")
    for images in options.images:
        trials, found = options.passes // images, []
        for seed in range(options.seeds):
            request = pipeline.Request(
                space.model_copy(update={"search_images": images}),
                options.out / f"{images}-{seed}",
                options.weights,
                options.pool,
                validation=options.validation,
                trials=trials,
                seed=seed,
                rivals=False,
                figures=False,
            )
            found.append(outcome(request))
        means = [
            shown([getattr(one, name) for one in found])
            for name in ("correlation", "best", "winner")
        ]
        print(f"| {images} | {trials} | {' | '.join(means)} |", flush=True)


def shown(values: list[float], how: str = ".3f") -> str:
    """Return the mean of values and its 95 % interval; a single value without one."""
    if len(values) == 1:
        return f"{fmean(values):{how}}"
    over = interval(values)
    return f"{over.mean:{how}} ± {over.high - over.mean:.3f}"


if __name__ == "__main__":
    main()
