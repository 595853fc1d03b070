"""A search on a changing pool of images beside one on fixed images, at equal passes.

    python -m benchmarks.changing_pool --space demo --seeds 8

Does a search whose trials race on images drawn anew find a better allocation than one on fixed
search images? Half of the final images join the search images in the pool; the other half are the
final images of both. Each trial of the pool sees as many images as the space's search has, others
each time, and is paired with the best so far on the same ones: it is stopped by the search's own
test on these pairs, and its value is its mean difference from the best, plus the best's mean over
the pool. A trial that is below the best is shown as many fresh images, then the rest of the pool,
and becomes the best if it is below it still. The pool begins no more trials once it has taken the
passes of the fixed search; its passes include the confirmations, the best on the whole pool, and
full precision on the images that the fixed search leaves.

The third row is the fixed search with a final round on all final images, as searches have it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata, spearmanr
from torch import Tensor, cat

import pipeline
import search_spaces
from benchmarks.final_round import observed
from benchmarks.real import machine
from benchmarks.search_images import RANKED, shown
from igq import Observation
from igq.evaluation import log_probabilities
from pipeline.cluster.feed import ProposalFeed
from pipeline.commands.machine.cache import shared_folder
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.files import read_json, write_json
from pipeline.preparation.prepare import Preparation, prepare
from pipeline.preparation.purposes import FINAL, VALIDATION
from pipeline.preparation.study import Study
from pipeline.proposals.pruner import P_THRESHOLD, p_worse
from pipeline.proposals.surrogate import SMALLEST
from pipeline.searching.final_round import play
from pipeline.study.best import completed
from pipeline.study.progress import SilentDisplay
from pipeline.study.trials import Origin, Proposal, Trial, passes

FIXED, POOL, WHOLE = "fixed", "pool", "fixed, all final images"
PAIRS = ((POOL, FIXED), (POOL, WHOLE))
"""Arms whose difference is shown."""
MORE = 2
"""The most trials of the pool, over those of the fixed search: passes end it before."""
TINY = 1e-6
"""The least KL in nats that is reported."""

Shown = Float[np.ndarray, "2 images"]
"""KL and logit MSE of each image."""
Places = Int[np.ndarray, " images"]
"""The places of images in the pool."""


@dataclass(frozen=True)
class Outcome:
    """A search's extent and its ends on unseen images: KLs in nats."""

    trials: int
    complete: int
    passes: int
    """Image-forward-passes of the trials."""
    final_passes: int
    """Image-forward-passes of the final round."""
    correlation: float
    """Rank correlation of the search's value with unseen KL over complete trials."""
    best: float
    """KL of the trial that is best by the search's value."""
    winner: float
    """KL of the final round's winner."""


class Race:
    """The pool's trials: each is compared with the best so far on the same images."""

    def __init__(self, pool: Task, images: int, device: str, seed: int) -> None:
        self._pool, self._images, self._device, self._seed = pool, images, device, seed
        self._best: Shown | None = None  # on the whole pool
        self.passes = 0

    def enter(self, proposal: Proposal) -> Observation:
        """Return what a proposal shows on a trial's images, as if all had seen the same ones."""
        generator = np.random.default_rng([self._seed, proposal.number])
        order = generator.permutation(len(self._pool.images))
        first, *fresh = np.split(order, [self._images, 2 * self._images])
        shown = self._look(proposal, first, races=proposal.origin is Origin.SAMPLER)
        for more in fresh:
            if self._leads(shown, order) and len(more):
                shown = np.hstack([shown, self._look(proposal, more)])
        seen, sorting = order[: shown.shape[1]], order.argsort()
        best = shown[:, sorting] if self._best is None else self._best
        if len(seen) == len(order) and self._leads(shown, order):
            self._best = shown[:, sorting]
        return comparable(shown, best[:, seen], best, self._images)

    def _leads(self, shown: Shown, order: Places) -> bool:
        """Return whether the KL is below the best's on the images that are shown, in order."""
        seen = order[: shown.shape[1]]
        return self._best is None or bool(shown[0].mean() < self._best[0, seen].mean())

    def _look(self, proposal: Proposal, places: Places, races: bool = False) -> Shown:
        """Show images to a proposal; one that races is stopped when surely worse than the best."""
        size, chunks = self._pool.chunk_size, list[Shown]()
        images, reference = self._pool.images[places], self._pool.reference[places]
        task = replace(self._pool, images=images, reference=reference)
        objective = Objective(task, self._device)
        for seen in objective.evaluate(proposal.allocation):
            chunks.append(np.array([seen.kls, seen.logit_mses]))
            self.passes += len(seen)
            if races and self._best is not None:
                known = self._best[0, places]
                best = [known[n * size : (n + 1) * size].mean() for n in range(len(chunks))]
                if surely_worse(np.subtract([chunk[0].mean() for chunk in chunks], best)):
                    break
        return np.hstack(chunks)


def surely_worse(differences: Float[np.ndarray, " chunks"]) -> bool:
    """Return whether chunks are worse than those of the best, by the test of the search."""
    if len(differences) < 2 or differences.mean() <= 0:
        return False
    signed = np.sign(differences) * rankdata(abs(differences))
    return p_worse(tuple(sorted(signed.tolist()))) < P_THRESHOLD


def comparable(shown: Shown, best: Shown, whole: Shown, images: int) -> Observation:
    """Return the first images with the means that are expected over the whole pool.

    `best` is the best on the images that are shown, `whole` on all. The mean KL and the mean
    logarithm of the logit MSE, which the sampler learns from, are the differences from the best
    over all that is shown, plus the best's over the pool.
    """
    kl = max(float((shown[0] - best[0]).mean() + whole[0].mean()), TINY)
    first = shown[0, :images]
    logs, less, base = (np.log(some[1] + SMALLEST) for some in (shown, best, whole))
    change = logs - less
    few = change[:images]
    mses = np.exp(few - few.mean() + change.mean() + base.mean()) - SMALLEST
    kls = first * (kl / max(first.mean(), TINY))
    return Observation(tuple(kls.tolist()), tuple(mses.clip(0).tolist()))


@dataclass(eq=False)
class Ledger:
    """The image-forward-passes of a search that has ended."""

    passes: int = 0


@dataclass(frozen=True, eq=False)
class ChangingPool(pipeline.InProcess):
    """Runs trials on images drawn anew for each, until a number of passes is taken."""

    images: Float[Tensor, "images channels height width"] = field(kw_only=True)
    """The images of the pool beside the search images."""
    reference: Float[Tensor, "images classes"] = field(kw_only=True)
    """The full-precision model's log probabilities of them."""
    most: int = field(kw_only=True)
    """The passes after which no more trials are begun."""
    seed: int = field(kw_only=True)
    ledger: Ledger = field(default_factory=Ledger)

    def run(self, task: Task, feed: ProposalFeed) -> None:
        """Evaluate proposals one by one until the passes are taken."""
        pool = replace(
            task,
            images=cat((task.images, self.images)),
            reference=cat((task.reference, self.reference)),
        )
        race = Race(pool, len(task.images), self.device, self.seed)
        race.passes = len(self.images)
        while race.passes < self.most and (proposal := feed.next()) is not None:
            start = perf_counter()
            shown = race.enter(proposal)
            for chunk, part in enumerate(parts(shown, task.chunk_size)):
                feed.report(proposal.number, chunk, part)  # it was stopped already, or never is
            feed.finish(proposal.number, perf_counter() - start)
        self.ledger.passes = race.passes


def parts(shown: Observation, size: int) -> Iterator[Observation]:
    """Yield an observation chunk by chunk."""
    for start in range(0, len(shown), size):
        some = slice(start, start + size)
        yield Observation(shown.kls[some], shown.logit_mses[some])


def outcomes(request: pipeline.Request) -> dict[str, Outcome]:
    """Run both searches of a seed, or read what an earlier run found."""
    path = request.out.with_suffix(".json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as folder:
            found = _searched(replace(request, out=Path(folder) / "every-image"))
        write_json(path, {name: asdict(one) for name, one in found.items()})
    return {name: Outcome(**one) for name, one in read_json(path).items()}


def _searched(request: pipeline.Request) -> dict[str, Outcome]:
    every = Study.create(request, SilentDisplay(), shared=shared_folder())
    final = every.images[FINAL].loaded()
    half = len(final) // 2
    space = request.space.model_copy(update={"final_images": half})
    fixed, preparation = _run(
        replace(request, space=space, out=request.out.with_name("fixed")), pipeline.InProcess()
    )
    found = {FIXED: _outcome(fixed, preparation, passes(fixed.trials))}
    found[WHOLE] = _with_final_round(found[FIXED], every, fixed, preparation)
    pool = ChangingPool(
        images=final[half:],
        reference=log_probabilities(every.model, final[half:]),
        most=found[FIXED].passes,
        seed=request.seed,
    )
    request = replace(request, out=request.out.with_name("pool"))
    raced = _run(replace(request, space=space, trials=MORE * request.num_trials), pool)
    return {**found, POOL: _outcome(*raced, pool.ledger.passes)}


def _run(
    request: pipeline.Request, cluster: pipeline.InProcess
) -> tuple[pipeline.Result, Preparation]:
    silent = SilentDisplay()
    result = pipeline.run(request, cluster, pipeline.InMemoryTracker(), silent)
    study = Study.create(replace(request, resume=True), silent)
    return result, prepare(study, silent)


def _outcome(result: pipeline.Result, preparation: Preparation, taken: int) -> Outcome:
    ranked = completed(result.trials, preparation.budget)
    places = np.linspace(0, len(ranked) - 1, min(RANKED, len(ranked))).round().astype(int)
    few = [ranked[place] for place in places]
    winner, *unseen = _unseen(preparation, [result.best, *few])
    correlation = spearmanr([trial.kl for trial in few], unseen).statistic
    return Outcome(
        trials=len(result.trials),
        complete=len(ranked),
        passes=taken,
        final_passes=result.final.passes if result.final else 0,
        correlation=float(correlation),
        best=unseen[0],
        winner=winner,
    )


def _with_final_round(
    found: Outcome, every: Study, result: pipeline.Result, preparation: Preparation
) -> Outcome:
    """Return the outcome with a final round on all final images."""
    final = play(preparation, result.trials, every.images[FINAL])
    assert final is not None  # a fixed search has several finalists
    winner = next(trial for trial in result.trials if trial.number == final.winner)
    (kl,) = _unseen(preparation, [winner])
    return replace(found, winner=kl, final_passes=final.passes)


def _unseen(preparation: Preparation, trials: list[Trial]) -> list[float]:
    """Return the KL of trials on the validation images."""
    return [one.kl for one in observed(preparation, trials, preparation.study.images[VALIDATION])]


def main() -> None:
    """Print a row for each search, their means over seeds, and the differences in pairs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="demo")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--validation")
    parser.add_argument("--trials", type=int, help="of the fixed search")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("studies/changing-pool"))
    options = parser.parse_args()
    request = pipeline.Request(
        search_spaces.load(options.space),
        options.out,
        options.weights,
        options.images,
        validation=options.validation,
        trials=options.trials,
        rivals=False,
        figures=False,
    )
    print(f"{options.space}, seeds 0 to {options.seeds - 1}; {machine()}")
    columns = ("trials", "complete", "passes", "final round's passes")
    print(f"| seed | images | {' | '.join(columns)} | rank correlation | best | winner |")
    print("|---" * 9 + "|")
    found = list[dict[str, Outcome]]()
    for seed in range(options.seeds):
        found.append(outcomes(replace(request, seed=seed, out=options.out / f"seed-{seed}")))
        for name in (FIXED, WHOLE, POOL):
            one = found[-1][name]
            counts = f"{one.trials} | {one.complete} | {one.passes:,} | {one.final_passes:,}"
            kls = f"{one.correlation:.3f} | {one.best:.3f} | {one.winner:.3f}"
            print(f"| {seed} | {name} | {counts} | {kls} |", flush=True)
    for name in (FIXED, WHOLE, POOL):
        print(f"| mean | {name} | {_mean([each[name] for each in found])} |")
    print("\n| difference | rank correlation | best | winner |\n|---|---|---|---|")
    for arm, other in PAIRS:
        less = [
            shown([getattr(each[arm], key) - getattr(each[other], key) for each in found], "+.3f")
            for key in ("correlation", "best", "winner")
        ]
        print(f"| {arm} less {other} | {' | '.join(less)} |")


def _mean(found: list[Outcome]) -> str:
    counts = [
        f"{fmean(getattr(one, key) for one in found):,.0f}"
        for key in ("trials", "complete", "passes", "final_passes")
    ]
    keys = ("correlation", "best", "winner")
    return " | ".join([*counts, *(shown([getattr(one, k) for one in found]) for k in keys)])


if __name__ == "__main__":
    main()
