"""The notes of an artifact, read as values: files are edited, and notes may hold anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from igq import ArtifactError
from pipeline.study.definition import space_of
from search_spaces import SearchSpace


@dataclass(frozen=True)
class NotedScore:
    """The score of a model on unseen images, as it was noted at the end of its search."""

    kl: float
    top1: float | None
    images: int
    source: str
    fingerprint: str


def space_noted(path: str | Path, notes: Mapping[str, Any]) -> SearchSpace:
    """Return the search space.

    Raises:
        ArtifactError: it is not noted, or is none.
    """
    try:
        return space_of(notes)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} must note a search space, but: {_line(error)}") from error


def score_noted(path: str | Path, notes: Mapping[str, Any]) -> NotedScore | None:
    """Return the score on unseen images; None where the search did not end with this model.

    Raises:
        ArtifactError: it is not one.
    """
    if notes.get("result") is None:
        return None
    try:
        row, on = notes["result"]["comparisons"][0], notes["result"]["validation"]
        top1 = None if row["top1"] is None else float(row["top1"])
        kl, images = float(row["kl"]), int(on["images"])
        score = NotedScore(kl, top1, images, str(on["source"]), str(on["fingerprint"]))
        if not isfinite(kl) or images < 1 or (top1 is not None and not 0 <= top1 <= 1):
            raise ValueError(f"{score} is no score")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(
            f"{path} must note the result of a search, but: {_line(error)}"
        ) from error
    return score


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
