"""The final round: the best few of a search, on images that no proposal was made from.

The least of many means over few images is least by luck as well, and the more so the longer a
search is. So the best few, and the baselines that every search has, are measured once more, by
successive halving: all of them on some images, the better half on twice as many, and so on until
those that are left have seen every image. What is best then is what the search found, if it is
clearly better than the integer program's answer, which no luck among many chose: or else that is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.comparison import Contender, measure
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from pipeline.intervals import interval
from pipeline.preparation import Preparation
from pipeline.study import Origin, Trial, best, best_of, completed

FINALISTS = 12
"""Trials with the least KL on the search images; uniform and the integer programs' come besides."""
ROUNDS = 3
"""At most; the last one is on every final image, each before it on half as many (our choice)."""
FEWEST = 64
"""Images of the first of several rounds: fewer images make one round (our choice)."""


@dataclass(frozen=True)
class Final:
    """What the finalists reached.

    >>> kls = {3: (0.5, 0.6), 7: (0.1, 0.9), 9: (0.3,)}
    >>> Final(kls).winner, Final(kls, incumbent=3).winner
    (7, 3)
    """

    kls: Mapping[int, tuple[float, ...]]
    """Trial number -> KL of each final image that it saw: the first ones, in nats."""
    incumbent: int | None = None
    """The trial that wins unless another is clearly better; it saw every image."""

    def json(self) -> dict[str, Any]:
        """As plain data."""
        kls = {str(number): list(kls) for number, kls in self.kls.items()}
        return {"kls": kls, "incumbent": self.incumbent}

    @property
    def least(self) -> int:
        """Of the trials that saw most images the one with the least KL, of equals the earlier."""
        return min(self.kls, key=lambda n: (-len(self.kls[n]), self.kl(n), n))

    @property
    def winner(self) -> int:
        """The one of least KL, if it is clearly better than the incumbent; or else that.

        Clearly: the interval of the paired difference holds no 0. The least of a dozen is a
        standard error better by luck alone.
        """
        if self.incumbent is None:
            return self.least
        pairs = zip(self.kls[self.least], self.kls[self.incumbent], strict=True)
        less = interval([least - incumbent for least, incumbent in pairs])
        return self.incumbent if less.holds_zero else self.least

    def kl(self, number: int) -> float:
        """Mean KL of a trial over the final images that it saw."""
        return fmean(self.kls[number])

    @property
    def forwards(self) -> int:
        """Image-forward-passes that it took."""
        return sum(map(len, self.kls.values()))


def finalists(trials: Iterable[Trial], budget: int) -> list[Trial]:
    """The trials of the final round, least KL on the search images first."""
    ranked = completed(trials, budget)
    always = (Origin.UNIFORM, Origin.ILP, Origin.FISHER)
    few = (t for i, t in enumerate(ranked) if i < FINALISTS or t.proposal.origin in always)
    return list({t.proposal.allocation: t for t in few}.values())


def play(
    preparation: Preparation,
    trials: Sequence[Trial],
    images: Images,
    progress: Callable[[float], None] = lambda share: None,
) -> Final | None:
    """Measure the finalists on the final images; None where there is nothing to choose from."""
    few = finalists(trials, preparation.budget)
    if len(images) == 0 or len(few) < 2:
        return None
    model, task, bops = preparation.model, preparation.task, preparation.bops
    incumbent = _incumbent(trials, few, preparation.budget)
    kls: dict[int, tuple[float, ...]] = {trial.number: () for trial in few}
    ends = ends_of_rounds(len(images))
    for played, (start, end) in enumerate(pairwise((0, *ends))):
        if played:
            ranked = sorted(few, key=lambda trial: fmean(kls[trial.number]))
            better = ranked[: max(2, -(-len(few) // 2))]
            few = [trial for trial in few if trial in better or trial is incumbent]

        def heard(share: float, played: int = played) -> None:
            progress((played + share) / len(ends))

        part = replace(images, values=images.values[start:end], labels=None)
        contenders = [Contender(str(trial.number), trial, 0) for trial in few]
        for measured in measure(model, task, bops, contenders, part, heard).measured:
            kls[measured.number] += measured.kls
    return Final(kls, incumbent.number if incumbent else None)


def _incumbent(trials: Sequence[Trial], few: Sequence[Trial], budget: int) -> Trial | None:
    """The finalist that an integer program answered: over predicted harms, or else measured."""
    programs = (best_of(trials, origin, budget) for origin in (Origin.FISHER, Origin.ILP))
    answer = next((trial.proposal.allocation for trial in programs if trial), None)
    return next((trial for trial in few if trial.proposal.allocation == answer), None)


def ends_of_rounds(images: int) -> list[int]:
    """How many of the images have been seen when each round ends.

    >>> ends_of_rounds(768), ends_of_rounds(137), ends_of_rounds(5)
    ([192, 384, 768], [68, 137], [5])
    """
    rounds = min(ROUNDS, max(1, (images // FEWEST).bit_length()))
    return [images >> after for after in reversed(range(rounds))]


def chosen(trials: Iterable[Trial], budget: int, final: Final | None) -> Trial | None:
    """The winner of the final round; without one, the trial of least KL on the search images."""
    if final is None:
        return best(trials, budget)
    return next((trial for trial in trials if trial.number == final.winner), None)


def final_line(trials: Iterable[Trial], final: Final) -> str:
    """What the final round took, beside what was best on the search images."""
    few = {trial.number: trial for trial in trials if trial.number in final.kls}
    taken = few[final.winner]
    line = (
        f"The final round, on {len(final.kls[taken.number])} images, took trial {taken.number} "
        f"({taken.proposal.origin}): KL {final.kl(taken.number):.4f} there"
    )
    if (least := final.least) != taken.number:
        line += f" (trial {least} has {final.kl(least):.4f}, which is no different)"
    found = best(few.values(), max(trial.proposal.bops for trial in few.values()))
    if found is None or found is taken:
        return f"{line}."
    return (
        f"{line}; trial {found.number}, the best on search images (KL {found.kl:.4f}), "
        f"has {final.kl(found.number):.4f} on the first {len(final.kls[found.number])}."
    )


def save_final(path: Path, final: Final | None) -> None:
    """Write the final round of a study, or take away that of an earlier end."""
    if final is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, final.json())


def load_final(path: Path) -> Final | None:
    """Read it back; None where there was none.

    Raises:
        StudyError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = read_json(path)
        read = {int(n): tuple(map(float, kls)) for n, kls in content["kls"].items()}
        if not read or not all(read.values()):
            raise ValueError("a trial has no KL")
        final = Final(read, content.get("incumbent"))
        if final.incumbent is not None and len(read[final.incumbent]) < len(read[final.least]):
            raise ValueError("the incumbent did not see every image")
        return final
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{path} must hold a study's final round, but: {error!r}. Resume the study to play it "
            "again."
        ) from error
