"""The outcome of a final round: the KL of each finalist on images of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.errors import StudyError
from pipeline.intervals import interval
from pipeline.study.seals import read_sealed, write_sealed


@dataclass(frozen=True)
class Final:
    """The KL of each finalist, image by image, and the choice that was made from it.

    >>> final = Final({3: (0.5, 0.6), 7: (0.1, 0.9), 9: (0.3,)}, winner=3)
    >>> final.least, final.passes
    (7, 5)
    """

    kls: Mapping[int, tuple[float, ...]]
    """Trial number -> KL of each final image that it saw: the first ones, in nats."""
    winner: int
    """The trial that was chosen: the one of least expected KL."""
    predicted: Mapping[int, float] = field(default_factory=dict)
    """Trial number -> the sum of its sensitivities in nats, which the choice knew."""

    def json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        kls = {str(number): list(kls) for number, kls in self.kls.items()}
        predicted = {str(number): kl for number, kl in self.predicted.items()}
        return {"kls": kls, "winner": self.winner, "predicted": predicted}

    @property
    def least(self) -> int:
        """The trial of least KL among those that saw most images; the earlier of equals."""
        return least(self.kls)

    def kl(self, number: int) -> float:
        """Return the mean KL of a trial over the final images that it saw."""
        return fmean(self.kls[number])

    @property
    def passes(self) -> int:
        """Image-forward-passes that the round took."""
        return sum(map(len, self.kls.values()))


def least(kls: Mapping[int, Sequence[float]]) -> int:
    """Return the trial of least KL among those that saw most images; the earlier of equals.

    >>> least({3: (0.5, 0.6), 7: (0.1, 0.9), 9: (0.3,)})
    7
    """
    return min(kls, key=lambda number: (-len(kls[number]), fmean(kls[number]), number))


def save_final(path: Path, final: Final | None) -> None:
    """Write the final round of a study, or remove that of an earlier end."""
    if final is None:
        path.unlink(missing_ok=True)
    else:
        write_sealed(path, final.json())


def load_final(path: Path) -> Final | None:
    """Read a final round back; None where there was none.

    Raises:
        StudyError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        content = read_sealed(path)
        read = {int(n): tuple(map(float, kls)) for n, kls in content["kls"].items()}
        if not read or not all(read.values()):
            raise ValueError("a trial has no KL")
        winner = content["winner"] if "winner" in content else _winner_of_before(read, content)
        if winner not in read:
            raise ValueError("the winner is no finalist")
        predicted = {int(n): float(kl) for n, kl in content.get("predicted", {}).items()}
        return Final(read, winner, predicted)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"{path} must hold a study's final round, but: {error!r}. Resume the study to play it "
            "again."
        ) from error


def _winner_of_before(kls: Mapping[int, Sequence[float]], content: Mapping[str, Any]) -> int:
    """Return the winner of a round whose file names none: version 1 chose it when it was read.

    An integer program's answer, the incumbent, stood unless the trial of least KL was clearly
    better.
    """
    found, incumbent = least(kls), content.get("incumbent")
    if incumbent is None:
        return found
    if len(kls[incumbent]) < len(kls[found]):
        raise ValueError("the incumbent did not see every image")
    pairs = zip(kls[found], kls[incumbent], strict=True)
    difference = interval([one - other for one, other in pairs])
    return int(incumbent) if difference.holds_zero else found
