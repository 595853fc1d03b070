"""What was computed once, on disk: fitted candidates, corrected weights and harm tables."""

import copy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from igq import Candidates, Corrected, Layer
from igq.affine import QuantizedTensor
from igq.allocation import Harm
from igq.candidates import bounds, with_bounds
from igq.correction import vectors
from igq.settings import Choice
from pipeline.errors import StudyError
from pipeline.files import appearing, read_json, write_json

_WEIGHT = ("codes", "scale", "zero_point")


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


def save_corrected(path: Path, corrected: Corrected) -> None:
    """Write a corrected model's parameters that have moved, and its weights' codes.

    Raises:
        StudyError: the folder cannot be written.
    """
    tensors = {f"vectors.{name}": vector for name, vector in vectors(corrected.model).items()}
    for name, weight in corrected.weights.items():
        tensors |= {f"{part}.{name}": getattr(weight, part) for part in _WEIGHT}
    with appearing(path) as draft:
        save_file({n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}, draft)


def load_corrected(path: Path, model: nn.Module, bits: int) -> Corrected:
    """Read back what `model` was corrected to; the original is untouched.

    Raises:
        StudyError: there is no such file, or it does not hold it.
    """
    try:
        stored = load_file(path)
        made = copy.deepcopy(model)
        for name, vector in vectors(made).items():
            vector.data.copy_(stored[f"vectors.{name}"])
        names = [n.removeprefix("codes.") for n in stored if n.startswith("codes.")]
        parts = {name: {part: stored[f"{part}.{name}"] for part in _WEIGHT} for name in names}
        return Corrected(made, {n: QuantizedTensor(**p, bits=bits) for n, p in parts.items()})
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise StudyError(f"{path} must hold corrected weights, but: {error!r}") from error


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
