"""Results that are computed once, on disk: candidates, corrected weights, sensitivities."""

import copy
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from igq import Candidates, Corrected, Layer, Scheme, Setting
from igq.allocation import Sensitivity
from igq.arithmetic.affine import QuantizedTensor
from igq.correction import vectors
from igq.quantized import bounds, with_bounds
from igq.settings import Options
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
    path: Path, layers: tuple[Layer, ...], scheme: Scheme, options: Options
) -> Candidates:
    """Read candidates back for the layers that they were fitted for.

    Raises:
        StudyError: there is no such file, or it does not hold them.
    """
    try:
        stored = load_file(path)
        return with_bounds(layers, scheme, options.num_groups, options.activation_bits[0], stored)
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
    """Read the corrected weights of `model` back; the original is untouched.

    Raises:
        StudyError: there is no such file, or it does not hold them.
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


def save_sensitivity(path: Path, sensitivity: Sensitivity) -> None:
    """Write a table of sensitivities: layer -> number of groups -> KL in nats."""
    write_json(
        path,
        {
            name: {str(setting): value for setting, value in row.items()}
            for name, row in sensitivity.items()
        },
    )


def load_sensitivity(path: Path) -> dict[str, dict[Setting, float]]:
    """Read a table of sensitivities back.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    try:
        return {
            name: {Setting(num_groups=int(groups)): float(value) for groups, value in row.items()}
            for name, row in read_json(path).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold a table of sensitivities, but: {error!r}") from error
