"""Results that are computed once, on disk: candidates, corrected weights, sensitivities.

Each file is named by what it follows from, and sealed: it says its name and a digest of what it
holds. One that was damaged, edited, or given another's name is refused.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from errno import EIO
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igq import Candidates, Corrected, Layer, Scheme, Setting
from igq.allocation import Sensitivity
from igq.arithmetic.affine import QuantizedTensor
from igq.correction import vectors
from igq.quantized import bounds, with_bounds
from igq.settings import Options
from pipeline.errors import StudyError
from pipeline.files import appearing
from pipeline.study.seals import check_seal, damaged, name_of, read_sealed, write_sealed

_WEIGHT = ("codes", "scale", "zero_point")
_SEAL = "igq"
"""The key of the seal among the metadata of a file of tensors."""


def save_candidates(path: Path, candidates: Candidates) -> None:
    """Write the bounds of every candidate, whole or not at all.

    Raises:
        StudyError: the folder cannot be written.
    """
    save_tensors(path, bounds(candidates))


def load_candidates(
    path: Path, layers: tuple[Layer, ...], scheme: Scheme, options: Options
) -> Candidates:
    """Read candidates back for the layers that they were fitted for.

    Raises:
        StudyError: there is no such file, or it does not hold them.
    """
    try:
        stored = load_tensors(path)
        return with_bounds(layers, scheme, options.num_groups, options.activation_bits[0], stored)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold the study's candidates, but: {error!r}") from error


def save_corrected(path: Path, corrected: Corrected) -> None:
    """Write a corrected model's parameters that have moved, and its weights' codes.

    Raises:
        StudyError: the folder cannot be written.
    """
    tensors = {f"vectors.{name}": vector for name, vector in vectors(corrected.model).items()}
    for name, weight in corrected.weights.items():
        tensors |= {f"{part}.{name}": getattr(weight, part) for part in _WEIGHT}
    save_tensors(path, {n: t.detach().cpu().clone() for n, t in tensors.items()})


def load_corrected(path: Path, model: nn.Module, bits: int) -> Corrected:
    """Read the corrected weights of `model` back; the original is untouched.

    Raises:
        StudyError: there is no such file, or it does not hold them.
    """
    try:
        stored = load_tensors(path)
        made = copy.deepcopy(model)
        for name, vector in vectors(made).items():
            vector.data.copy_(stored[f"vectors.{name}"])
        names = [n.removeprefix("codes.") for n in stored if n.startswith("codes.")]
        parts = {name: {part: stored[f"{part}.{name}"] for part in _WEIGHT} for name in names}
        return Corrected(made, {n: QuantizedTensor(**p, bits=bits) for n, p in parts.items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold corrected weights, but: {error!r}") from error


def save_sensitivity(path: Path, sensitivity: Sensitivity) -> None:
    """Write a table of sensitivities: layer -> number of groups -> KL in nats."""
    rows = {n: {str(setting): kl for setting, kl in row.items()} for n, row in sensitivity.items()}
    write_sealed(path, rows, path.stem)


def load_sensitivity(path: Path) -> dict[str, dict[Setting, float]]:
    """Read a table of sensitivities back.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    try:
        return {
            name: {Setting(num_groups=int(groups)): float(value) for groups, value in row.items()}
            for name, row in read_sealed(path, path.stem).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold a table of sensitivities, but: {error!r}") from error


def load_parts(path: Path) -> dict[str, dict[str, float]]:
    """Read the sensitivities of parts of settings back.

    Raises:
        StudyError: there is no such file, or it is damaged.
    """
    try:
        rows = read_sealed(path, path.stem)
        return {n: {part: float(kl) for part, kl in row.items()} for n, row in rows.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise StudyError(f"{path} must hold sensitivities of parts, but: {error!r}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with their seal, whole or not at all.

    Raises:
        StudyError: the folder cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seal = {"of": path.stem, "digest": tensors_digest(plain)}
    with appearing(path) as draft:
        try:
            save_file(plain, draft, {_SEAL: json.dumps(seal)})
        except SafetensorError as error:  # its own word for a disk that is full
            raise OSError(EIO, str(error)) from error


def load_tensors(path: Path, required: bool = False) -> dict[str, Tensor]:
    """Read tensors that are as they were written.

    Files of studies of before may have no seal, unless it is `required`.

    Raises:
        StudyError: there is no such file, or it was damaged, edited, or given another's name.
    """
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        stored = load_file(path)
        seal = json.loads(metadata[_SEAL]) if _SEAL in metadata else None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise damaged(path, f"it cannot be read: {error}") from error
    if seal is None and name_of(path) is None and not required:
        return stored
    check_seal(path, seal, tensors_digest(stored), path.stem)
    return stored


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes."""
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()
