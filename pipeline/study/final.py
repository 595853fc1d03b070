"""The outcome of a final round: the KL of each finalist on images of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.errors import StudyError
from pipeline.files import read_json, write_json
from pipeline.intervals import interval


@dataclass(frozen=True)
class Final:
    """The KL of each finalist, image by image.

    >>> kls = {3: (0.5, 0.6), 7: (0.1, 0.9), 9: (0.3,)}
    >>> Final(kls).winner, Final(kls, incumbent=3).winner
    (7, 3)
    """

    kls: Mapping[int, tuple[float, ...]]
    """Trial number -> KL of each final image that it saw: the first ones, in nats."""
    incumbent: int | None = None
    """The trial that wins unless another is clearly better; it saw every image."""

    def json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        kls = {str(number): list(kls) for number, kls in self.kls.items()}
        return {"kls": kls, "incumbent": self.incumbent}

    @property
    def least(self) -> int:
        """The trial of least KL among those that saw most images; the earlier of equals."""
        return min(self.kls, key=lambda n: (-len(self.kls[n]), self.kl(n), n))

    @property
    def winner(self) -> int:
        """The trial of least KL, if it is clearly better than the incumbent; else the incumbent.

        Clearly: the interval of the paired difference excludes 0. The least of a dozen is a
        standard error better by luck alone.
        """
        if self.incumbent is None:
            return self.least
        pairs = zip(self.kls[self.least], self.kls[self.incumbent], strict=True)
        difference = interval([least - incumbent for least, incumbent in pairs])
        return self.incumbent if difference.holds_zero else self.least

    def kl(self, number: int) -> float:
        """Return the mean KL of a trial over the final images that it saw."""
        return fmean(self.kls[number])

    @property
    def passes(self) -> int:
        """Image-forward-passes that the round took."""
        return sum(map(len, self.kls.values()))


def save_final(path: Path, final: Final | None) -> None:
    """Write the final round of a study, or remove that of an earlier end."""
    if final is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, final.json())


def load_final(path: Path) -> Final | None:
    """Read a final round back; None where there was none.

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
