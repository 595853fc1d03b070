"""What was computed once, on disk: fitted candidates and harm tables."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from igq import Candidates, Layer
from igq.allocation import Harm
from igq.candidates import bounds, with_bounds
from igq.settings import Choice
from pipeline.errors import StudyError
from pipeline.files import appearing, read_json, write_json


def save_candidates(path: Path, candidates: Candidates) -> None:
    """Write the bounds of every candidate, whole or not at all.

    Raises:
        StudyError: the folder cannot be written.
    """
    with appearing(path) as draft:
        save_file(bounds(candidates), draft)


def load_candidates(
    path: Path, layers: tuple[Layer, ...], num_groups: tuple[int, ...], bits: int
) -> Candidates:
    """Read candidates back for the layers that they were fitted for.

    Raises:
        StudyError: there is no such file, or it does not hold them.
    """
    try:
        return with_bounds(layers, num_groups, bits, load_file(path))
    except (OSError, KeyError, SafetensorError) as error:
        raise StudyError(f"{path} must hold the study's candidates, but: {error!r}") from error


def save_harm(path: Path, harm: Harm) -> None:
    """Write a harm table: layer -> num_groups -> KL in nats."""
    write_json(path, harm)


def load_harm(path: Path) -> dict[str, dict[Choice, float]]:
    """Read a harm table back.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    try:
        return {
            name: {int(groups): float(value) for groups, value in row.items()}
            for name, row in read_json(path).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold a harm table, but: {error!r}") from error
