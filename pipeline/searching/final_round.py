"""The final round: the best few of a search, on images that no proposal was made from.

The least of many means over few images is least by luck as well, and the more so the longer a
search is. So the best few, and the baselines that every search has, are measured once more: all of
them on some images, those that may be the best still on twice as many, and so on. The winner is
the one of least expected KL (`choice`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from igq.costs import Number
from igq.progress import Progress, silent
from pipeline.data import Images
from pipeline.evaluation.validation import Contender, measure
from pipeline.evaluation.work import Workers
from pipeline.preparation.prepare import Preparation
from pipeline.searching.choice import Kls, Known, choose, in_doubt, total
from pipeline.study.best import best, completed
from pipeline.study.final import Final
from pipeline.study.trials import Origin, Trial

FINALISTS = 12
"""Trials of least KL on the search images; the uniform and the integer programs' come besides."""
ROUNDS = 3
"""The most rounds; each ends on twice as many images as the one before (our choice)."""
FEWEST = 64
"""Images of the first of several rounds: fewer images make one round (our choice)."""

Look = Callable[[Sequence[int], int, int], Kls]
"""Numbers of trials, and the images from one place to another -> their KL on each of these."""


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
    workers: Workers | None = None,
) -> Final | None:
    """Measure the finalists on the final images; None where there is nothing to choose from."""
    few = {trial.number: trial for trial in finalists(trials, preparation.budget)}
    if len(images) == 0 or len(few) < 2:
        return None
    known = {n: preparation.sensitivities_of(t.proposal.allocation) for n, t in few.items()}
    model, task, limits = preparation.model, preparation.task, preparation.limits

    def look(numbers: Sequence[int], start: int, end: int) -> Kls:
        some = replace(images, values=images.values[start:end], labels=None)
        contenders = [Contender(str(n), few[n], 0) for n in numbers]

        def told(share: float) -> None:
            progress((start + share * (end - start)) / len(images))

        measured = measure(model, task, limits, contenders, some, told, workers).measured
        return {one.number: one.kls for one in measured}

    final = race(known, len(images), look)
    progress(1.0)
    return final


def race(known: Known, images: int, look: Look) -> Final:
    """Show images to finalists in rounds, as long as they may be the best; choose the winner.

    `known` are the sensitivities of each trial's settings; `look` measures trials on the images
    from one place to another.

    >>> def look(numbers, start, end):
    ...     return {number: [1 / number] * (end - start) for number in numbers}
    >>> race({2: {"fc": 0.2}, 4: {"fc": 0.1}}, images=3, look=look).kls
    {2: (0.5, 0.5, 0.5), 4: (0.25, 0.25, 0.25)}
    """
    kls: dict[int, tuple[float, ...]] = dict.fromkeys(known, ())
    few = list(known)
    for start, end in pairwise((0, *ends_of_rounds(images))):
        if start:
            few = in_doubt(few, kls, known)
        if len(few) < 2:
            break
        for number, more in look(few, start, end).items():
            kls[number] += tuple(more)
    return Final(kls, choose(kls, known), {n: total(nats) for n, nats in known.items()})


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
