"""Read the weights in a checkpoint; nothing that a file brings is executed.

A checkpoint of training holds several sets of weights beside an optimizer, arguments and more. The
moving average (EMA) is taken first, as timm does.
"""

import argparse
import json
import pathlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy._core.multiarray as made
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from igq.errors import WeightsError

KEYS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model", "model_state_dict", "module", "net", "network"),
    *("teacher", "student", "weights", "params"),
)
"""The names of sets of weights in checkpoints, those that are preferred first."""
_FOLDER = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
_CLASSES = ("class_to_idx", "label_names", "class_names", "classes")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights of one set in a file."""

    origin: str
    """The file, as it is named in messages."""
    tensors: Mapping[str, Tensor]
    key: str
    """Where the set lies in the file: `state_dict`, or "" where the file is the set."""
    others: tuple[str, ...]
    """The keys of the file's other sets."""
    classes: Any = None
    """The names of the classes in whatever form the file has them; None where it has none."""


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read one set of weights from a file, or from the folder of a Hugging Face model.

    `key` None: the first of `KEYS` that the file has.

    Raises:
        WeightsError: the file cannot be read, holds objects beside plain values, or has no
            tensors there.
    """
    file = _file_of(path)
    loaded = _load(file)
    found = dict(_sets(loaded))
    if not found:
        raise WeightsError(f"{path} must hold tensors by name alone, but holds other values.")
    chosen = next(iter(found)) if key is None else key
    if chosen not in found:
        known = _printable(", ".join(name or "''" for name in found))
        raise WeightsError(f"`checkpoint_key` must be one of {known} in {path}, but got {chosen}.")
    classes = _described(path) if path.is_dir() else _classes(loaded)
    others = tuple(name for name in found if name != chosen)
    return Checkpoint(str(path), found[chosen], chosen, others, classes)


def _file_of(path: Path) -> Path:
    """Return the file of weights, in a folder the one that a library of models wrote."""
    if not path.is_dir():
        return path
    for name in _FOLDER:
        if (path / name).is_file():
            return path / name
    divided = any((path / f"{name}.index.json").is_file() for name in _FOLDER)
    reason = "its weights are divided among files; save them as one" if divided else "it has none"
    raise WeightsError(
        f"{path} could not be read as weights: a folder must hold {', '.join(_FOLDER[:-1])} or "
        f"{_FOLDER[-1]}, but {reason}."
    )


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([*_PLAIN]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path} must hold tensors, and nothing that runs code{_objects(path, error)}; save "
            "model.state_dict() alone."
        ) from error
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} could not be read as weights: {_first_line(error)}") from error
    except Exception as error:  # damaged pickles raise nearly everything
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise WeightsError(f"{path} could not be read as weights: {reason}") from error


def _objects(path: Path, error: Exception) -> str:
    """Name the objects that a file would have made."""
    try:
        with torch.serialization.safe_globals([*_PLAIN]):
            named = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # no zip file, or damaged
        named = []
    if not named:
        reason = str(error).partition("WeightsUnpickler error: ")[2].partition("\n")[0].strip()
        return f", but cannot be read so{f' ({_printable(reason)[:100]})' if reason else ''}"
    more = f" and {len(named) - 3} more" * (len(named) > 3)
    return f", but has {_printable(', '.join(named[:3]))}{more}"


def _sets(loaded: Any, prefix: str = "", depth: int = 3) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every set of weights in a checkpoint with its key, those that are preferred first."""
    if not isinstance(loaded, Mapping) or not depth:
        return
    names = [name for name in KEYS if name in loaded]
    names += [n for n in loaded if isinstance(n, str) and n not in KEYS and n not in _NOT_WEIGHTS]
    for name in names:
        yield from _sets(loaded[name], f"{prefix}{name}.", depth - 1)
    tensors = {k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors and all(_is_plain(v) for k, v in loaded.items() if k not in tensors):
        yield prefix.rstrip("."), tensors


_NOT_WEIGHTS = frozenset({"optimizer", "lr_scheduler", "scaler", "amp_scaler", "args", "config"})


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Tensor | Mapping) or not any(
        isinstance(inner, Tensor)
        for inner in (value.values() if isinstance(value, Mapping) else ())
    )


def _described(folder: Path) -> Any:
    """Return the names of classes in the configuration beside a Hugging Face model."""
    try:
        described = json.loads((folder / "config.json").read_text())
        return described.get("id2label") or described.get("label_names")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _classes(loaded: Any) -> Any:
    if not isinstance(loaded, Mapping):
        return None
    return next(
        (loaded[name] for name in _CLASSES if isinstance(loaded.get(name), list | dict)), None
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _printable(lines[0])


def _printable(text: str) -> str:
    """Leave out what a terminal might act on: names in a file are anyone's."""
    return "".join(letter for letter in text if letter.isprintable())


def _empty(factory: object = None) -> dict[Any, Any]:
    """Return the dict that stands for one with a factory, which torch's reader cannot fill."""
    return {}


_PLAIN: tuple[Any, ...] = (
    argparse.Namespace,
    types.SimpleNamespace,
    (_empty, "collections.defaultdict"),
    *(bool, bytes, dict, float, int, list, set, str, tuple),
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
    (pathlib.PureWindowsPath, "pathlib._local.WindowsPath"),
    np.dtype,
    np.ndarray,
    *((made.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((made._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")),
)
"""Types of plain values that training scripts save beside weights; making one runs nothing else."""
