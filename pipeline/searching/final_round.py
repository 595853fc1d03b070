"""The final round: the best few of a search, on images that no proposal was made from.

The least of many means over few images is least by luck as well, and the more so the longer a
search is. So the best few, and the baselines that every search has, are measured once more, by
successive halving: all of them on some images, the better half on twice as many, and so on until
the last few have seen every image. The winner is the best of them if it is clearly better than the
integer program's answer, which no luck among many chose; otherwise that answer wins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from igq.costs import Number
from igq.progress import Progress, part, silent
from pipeline.data import Images
from pipeline.evaluation.validation import Contender, measure
from pipeline.preparation.prepare import Preparation
from pipeline.study.best import best, best_of, completed
from pipeline.study.final import Final
from pipeline.study.trials import Origin, Trial

FINALISTS = 12
"""Trials of least KL on the search images; the uniform and the integer programs' come besides."""
ROUNDS = 3
"""The most rounds; the last is on every image, each before it on half as many (our choice)."""
FEWEST = 64
"""Images of the first of several rounds: fewer images make one round (our choice)."""


def finalists(trials: Iterable[Trial], budget: Number) -> list[Trial]:
    """Return the trials of the final round, least KL on the search images first."""
    ranked = completed(trials, budget)
    always = (Origin.UNIFORM, Origin.ILP, Origin.FISHER)
    few = (t for i, t in enumerate(ranked) if i < FINALISTS or t.proposal.origin in always)
    return list({t.proposal.allocation: t for t in few}.values())


def play(
    preparation: Preparation,
    trials: Sequence[Trial],
    images: Images,
    progress: Progress = silent,
) -> Final | None:
    """Measure the finalists on the final images; None where there is nothing to choose from."""
    few = finalists(trials, preparation.budget)
    if len(images) == 0 or len(few) < 2:
        return None
    incumbent = _incumbent(trials, few, preparation.budget)
    kls: dict[int, tuple[float, ...]] = {trial.number: () for trial in few}
    ends = ends_of_rounds(len(images))
    model, task, limits = preparation.model, preparation.task, preparation.limits
    for played, (start, end) in enumerate(pairwise((0, *ends))):
        if played:
            ranked = sorted(few, key=lambda trial: fmean(kls[trial.number]))
            better = ranked[: max(2, -(-len(few) // 2))]
            few = [trial for trial in few if trial in better or trial is incumbent]
        told = part(progress, played, len(ends))
        some = replace(images, values=images.values[start:end], labels=None)
        contenders = [Contender(str(trial.number), trial, 0) for trial in few]
        for measured in measure(model, task, limits, contenders, some, told).measured:
            kls[measured.number] += measured.kls
    return Final(kls, incumbent.number if incumbent else None)


def _incumbent(trials: Sequence[Trial], few: Sequence[Trial], budget: Number) -> Trial | None:
    """Return the finalist of an integer program: over predicted sensitivities, or measured."""
    programs = (best_of(trials, origin, budget) for origin in (Origin.FISHER, Origin.ILP))
    answer = next((trial.proposal.allocation for trial in programs if trial), None)
    return next((trial for trial in few if trial.proposal.allocation == answer), None)


def ends_of_rounds(images: int) -> list[int]:
    """Return how many of the images have been seen when each round ends.

    >>> ends_of_rounds(768), ends_of_rounds(137), ends_of_rounds(5)
    ([192, 384, 768], [68, 137], [5])
    """
    rounds = min(ROUNDS, max(1, (images // FEWEST).bit_length()))
    return [images >> after for after in reversed(range(rounds))]


def final_line(trials: Iterable[Trial], final: Final) -> str:
    """Say which trial the final round took, beside the best one on the search images."""
    few = {trial.number: trial for trial in trials if trial.number in final.kls}
    taken = few[final.winner]
    line = (
        f"The final round, on {len(final.kls[taken.number])} images, took trial {taken.number} "
        f"({taken.proposal.origin}): KL {final.kl(taken.number):.4f} there"
    )
    if (least := final.least) != taken.number:
        line += f" (trial {least} has {final.kl(least):.4f}, which is no different)"
    found = best(few.values(), max(trial.proposal.cost for trial in few.values()))
    if found is None or found is taken:
        return f"{line}."
    return (
        f"{line}; trial {found.number}, the best on search images (KL {found.kl:.4f}), "
        f"has {final.kl(found.number):.4f} on the first {len(final.kls[found.number])}."
    )
