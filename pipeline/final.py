"""The final round: the best few of a search, on images that no proposal was made from.

The least of many means over few images is least by luck as well, and the more so the longer a
search is. So the best few, and the baselines that every search has, are measured once more; what is
best there is what the search found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.comparison import Contender, measure
from pipeline.data import Images
from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from pipeline.preparation import Preparation
from pipeline.study import Origin, Trial, best, completed

FINALISTS = 8
"""Trials with the least KL on the search images; uniform and the ILP's come besides."""


@dataclass(frozen=True)
class Final:
    """What the finalists reached.

    >>> Final(images=100, kls={3: 0.5, 7: 0.4}).winner
    7
    """

    images: int
    kls: Mapping[int, float]
    """Trial number -> mean KL over the final images."""

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {"images": self.images, "kls": {str(n): kl for n, kl in self.kls.items()}}

    @property
    def winner(self) -> int:
        """The number of the trial with the least KL, the earlier one of equals."""
        return min(self.kls, key=lambda number: (self.kls[number], number))

    @property
    def forwards(self) -> int:
        """Image-forward-passes that it took."""
        return self.images * len(self.kls)


def finalists(trials: Iterable[Trial], budget: int) -> list[Trial]:
    """The trials of the final round, least KL on the search images first."""
    ranked = completed(trials, budget)
    always = (Origin.UNIFORM, Origin.ILP)
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
    contenders = [Contender(str(trial.number), trial, 0) for trial in few]
    model, task, bops = preparation.model, preparation.task, preparation.bops
    validation = measure(model, task, bops, contenders, images, progress)
    return Final(len(images), {m.number: fmean(m.kls) for m in validation.measured})


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
        f"The final round, on {final.images} images, took trial {taken.number} "
        f"({taken.proposal.origin}): KL {final.kls[taken.number]:.4f} there"
    )
    least = best(few.values(), max(trial.proposal.bops for trial in few.values()))
    if least is None or least is taken:
        return f"{line}."
    return (
        f"{line}; trial {least.number}, the best on search images (KL {least.kl:.4f}), "
        f"has {final.kls[least.number]:.4f}."
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
        kls = {int(number): float(kl) for number, kl in content["kls"].items()}
        return Final(int(content["images"]), kls)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(f"{path} must hold a study's final round, but: {error!r}") from error
