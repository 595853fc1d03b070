"""Rules of the final round, judged by the KL of their winners on unseen images.

    python -m benchmarks.final_round --space demo --seeds 8 --out studies/final-round

benchmarks/finalists/ has what was measured on real weights, to be given as --out. Each seed's
search is run, or read from --out, and every finalist is measured on every final image
and on the validation images. Each rule then plays its round from these numbers. Its regret is the
KL of its winner less that of the best finalist, both on the validation images. As one such split
of the images is mostly luck, the rules also play on random splits of all of them (--splits).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float

import igq
import pipeline
import search_spaces
from benchmarks.real import machine
from igq.evaluation import log_probabilities
from pipeline.data import Images
from pipeline.evaluation.objective import Objective
from pipeline.files import read_json, write_json
from pipeline.intervals import interval
from pipeline.preparation.prepare import Preparation, prepare
from pipeline.preparation.purposes import FINAL, VALIDATION
from pipeline.preparation.study import Study
from pipeline.searching.choice import Sensitivities, total
from pipeline.searching.final_round import ends_of_rounds, finalists, race
from pipeline.study.progress import SilentDisplay
from pipeline.study.trials import Origin, Trial

Numbers = Float[np.ndarray, "finalists images"]


@dataclass(frozen=True, eq=False)
class Table:
    """The finalists of a study on images that a round may show, and their KL on others."""

    origins: tuple[str, ...]
    known: tuple[Sensitivities, ...]
    kls: Numbers
    logit_mses: Numbers
    unseen: Float[np.ndarray, " finalists"]

    @property
    def program(self) -> int:
        """The place of an integer program's answer: over predicted sensitivities, or measured."""
        known = (o for o in (Origin.FISHER, Origin.ILP) if o in self.origins)
        return self.origins.index(next(known, self.origins[0]))


@dataclass(frozen=True)
class Played:
    """The place of a rule's winner, and the image-forward-passes that its round took."""

    winner: int
    passes: int


def halving(table: Table, kept: Sequence[int] = ()) -> Played:
    """Play successive halving by KL; `kept` see every image, whatever their KL."""
    few, passes = list(range(len(table.kls))), 0
    for start, end in pairwise((0, *ends_of_rounds(table.kls.shape[1]))):
        if start:
            ranked = sorted(few, key=lambda i: table.kls[i, :start].mean())
            few = sorted({*ranked[: max(2, -(-len(few) // 2))], *kept})
        passes += len(few) * (end - start)
    return Played(min(few, key=lambda i: table.kls[i].mean()), passes)


def program_unless_clearly_beaten(table: Table) -> Played:
    """Play halving; its best wins if the interval of its difference from the program excludes 0."""
    played = halving(table, [table.program])
    less = interval((table.kls[played.winner] - table.kls[table.program]).tolist())
    return replace(played, winner=table.program) if less.holds_zero else played


def expected_loss(table: Table) -> Played:
    """Play the search's own final round."""
    return _raced(table, table.known)


def each_its_own_error(table: Table) -> Played:
    """Play the round as if no two finalists had a setting, and so its error, in common."""
    return _raced(table, [{n: total(known)} for n, known in enumerate(table.known)])


def _raced(table: Table, known: Sequence[Sensitivities]) -> Played:
    def look(numbers: Sequence[int], start: int, end: int) -> Mapping[int, Sequence[float]]:
        return {number: table.kls[number, start:end].tolist() for number in numbers}

    final = race(dict(enumerate(known)), table.kls.shape[1], look)
    return Played(final.winner, final.passes)


Rule = Callable[[Table], Played]
RULES: Mapping[str, Rule] = {
    "the integer program's answer": lambda table: Played(table.program, 0),
    "the program unless clearly beaten": program_unless_clearly_beaten,
    "halving by KL": halving,
    "least KL": lambda table: Played(int(table.kls.mean(axis=1).argmin()), table.kls.size),
    "least logit MSE": lambda t: Played(int(t.logit_mses.mean(axis=1).argmin()), t.kls.size),
    "least expected KL, errors apart (before)": each_its_own_error,
    "least expected KL": expected_loss,
    "(the best finalist)": lambda table: Played(int(table.unseen.argmin()), 0),
}


def measured(request: pipeline.Request) -> list[dict[str, Any]]:
    """Run a search, or read it; return its finalists on both sets of images."""
    path = request.out.with_suffix(".json")
    if path.exists():
        return list(read_json(path))
    silent, tracker = SilentDisplay(), pipeline.InMemoryTracker()
    request = replace(request, resume=request.out.exists())
    result = pipeline.run(request, pipeline.InProcess(), tracker, silent)
    study = Study.create(replace(request, resume=True), silent)
    preparation, few = prepare(study, silent), finalists(result.trials, study.budget)
    final, unseen = (observed(preparation, few, study.images[use]) for use in (FINAL, VALIDATION))
    rows = [
        {
            "number": trial.number,
            "origin": trial.proposal.origin.value,
            "search_kl": trial.observation.kl,
            "sensitivities": {
                f"{name}: {setting}": nats
                for (name, setting), nats in preparation.sensitivities_of(
                    trial.proposal.allocation
                ).items()
            },
            "final": asdict(shown),
            "unseen": asdict(hidden),
        }
        for trial, shown, hidden in zip(few, final, unseen, strict=True)
    ]
    write_json(path, rows)
    return rows


def observed(
    preparation: Preparation, few: Sequence[Trial], images: Images
) -> list[igq.Observation]:
    """Return the effect of each finalist on each image."""
    reference = log_probabilities(preparation.model, images.loaded())
    task = replace(preparation.task, images=images.loaded(), reference=reference)
    objective = Objective(task, next(preparation.model.parameters()).device)
    each = (objective.evaluate(trial.proposal.allocation) for trial in few)
    return [sum(chunks, igq.Observation()) for chunks in each]


def tables(rows: list[dict[str, Any]], splits: int, seed: int) -> list[Table]:
    """Return the study's own split of its images, then random ones of the same sizes."""
    kls, mses = (
        np.array([[*row["final"][name], *row["unseen"][name]] for row in rows])
        for name in ("kls", "logit_mses")
    )
    shown, generator = len(rows[0]["final"]["kls"]), np.random.default_rng(seed)
    orders = [
        np.arange(kls.shape[1]),
        *(generator.permutation(kls.shape[1]) for _ in range(splits)),
    ]
    origins = tuple(row["origin"] for row in rows)
    known = tuple(row["sensitivities"] for row in rows)
    return [
        Table(origins, known, kls[:, one], mses[:, one], kls[:, other].mean(axis=1))
        for one, other in ((order[:shown], order[shown:]) for order in orders)
    ]


def arguments() -> argparse.Namespace:
    """Return the options as given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="demo")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--validation")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("studies/final-round"))
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    options = arguments()
    request = pipeline.Request(
        search_spaces.load(options.space),
        options.out / "seed",
        options.weights,
        options.images,
        validation=options.validation,
        trials=options.trials,
        rivals=False,
        figures=False,
    )
    seeds = range(options.seed, options.seed + options.seeds)
    studies = [
        tables(
            measured(replace(request, seed=seed, out=options.out / f"seed-{seed}")),
            options.splits,
            seed,
        )
        for seed in seeds
    ]
    print(f"{options.space}, seeds {seeds.start} to {seeds.stop - 1}; {machine()}")
    print(f"| rule | {' | '.join(map(str, seeds))} | mean KL | regret | over splits | passes |")
    print("|---" * (len(seeds) + 5) + "|")
    for name, rule in RULES.items():
        print(f"| {name} | {row(studies, rule)} |", flush=True)


def row(studies: Sequence[Sequence[Table]], rule: Rule) -> str:
    """Return the KL of a rule's winners, then regrets on the own and on all splits, and passes."""
    played = [[(table, rule(table)) for table in found] for found in studies]
    regrets = [[table.unseen[p.winner] / table.unseen.min() - 1 for table, p in r] for r in played]
    own = [found[0][0].unseen[found[0][1].winner] for found in played]
    over = interval([fmean(found[1:] or found) for found in regrets])
    passes = fmean(p.passes for found in played for _, p in found)
    cells = [f"{kl:.3f}" for kl in own]
    cells += [f"{fmean(own):.4f}", f"{fmean(found[0] for found in regrets):.1%}"]
    return " | ".join([*cells, f"{over.mean:.1%} ± {over.high - over.mean:.1%}", f"{passes:,.0f}"])


if __name__ == "__main__":
    main()
