"""The files of an artifact that show the manifest to people and to other programs.

`allocation.json` lists layer, setting and cost; `preprocessing.json` says how an image becomes the
model's input, `classes.json` what its outputs are called. Each follows from the manifest, so that
none of them can say something else.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from igq.allocation import Allocation
from igq.errors import ArtifactError
from igq.formats.integrity import DamagedError, read_object
from igq.formats.native.manifest import MANIFEST, TENSORS, Described
from igq.formats.native.rules import rotation_of
from igq.layer import Kind, Layer
from igq.scheme import InputMethod, SoftmaxMethod
from igq.settings import Setting

ALLOCATION, PREPROCESSING, CLASSES = "allocation.json", "preprocessing.json", "classes.json"
VIEWS = (ALLOCATION, PREPROCESSING, CLASSES)
CARD = "README.md"
RECORD_FORMAT, RECORD_SCHEMA = "igq-allocation", 1
RECORDED = (
    "totals",
    "fixed_costs",
    "limits",
    "scores",
    "calibration",
    "images",
    "study",
    "trial",
    "mlflow_run",
)
"""Notes that `allocation.json` repeats as they are; None where they are not noted."""
_INPUTS = {"channels": InputMethod.CHANNELS, "token groups": InputMethod.TOKENS}
_SOFTMAX = {
    "rows": SoftmaxMethod.ROWS,
    "unit rows": SoftmaxMethod.UNIT_ROWS,
    "key groups": SoftmaxMethod.KEYS,
}
_CONFIG = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")
_ORDERS = ("natural", "alphabetical")
"""Orders of class folders whose names nothing tells."""
_CROPS = ("center", "squash", "border")
_MOST_NAME = 1000


def views(manifest: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """Return the content of each file that shows a part of the manifest."""
    notes = manifest["notes"]
    content = (
        allocation_record(manifest, layers),
        notes.get("preprocessing"),
        notes.get("classes"),
    )
    return {n: c for n, c in zip(VIEWS, content, strict=True) if c is not None}


def allocation_record(manifest: Mapping[str, Any], layers: Iterable[Layer]) -> dict[str, Any]:
    """Return the content of `allocation.json`: all that `igq apply` needs beside the weights.

    Of the manifest's files only that of the tensors must be there already.
    """
    notes, listed = manifest["notes"], tuple(layers)
    return {
        "format": RECORD_FORMAT,
        "schema": RECORD_SCHEMA,
        "versions": manifest["versions"],
        "model": {
            **manifest["model"],
            "weights": notes.get("model"),
            "tensors": manifest["files"][TENSORS]["sha256"],
        },
        "scheme": _scheme(manifest, listed),
        **{name: notes.get(name) for name in RECORDED},
        "space": notes.get("space"),
        "layers": [_layer(manifest, layer) for layer in listed],
    }


def read_allocation(path: str | Path) -> tuple[Allocation, dict[str, Any]]:
    """Return the setting of every layer that an `allocation.json` holds, and all of its content.

    Raises:
        ArtifactError: there is no such file, or it is not one that an artifact has.
    """
    path = Path(path)
    try:
        content = read_object(path.parent, path.name)
        if (content.get("format"), content.get("schema")) != (RECORD_FORMAT, RECORD_SCHEMA):
            raise ValueError(f"it must be an {RECORD_FORMAT} of schema {RECORD_SCHEMA}")
        if not isinstance(content.get("model"), dict):
            raise ValueError("it must name its model")
        settings = {str(entry["name"]): str(entry["setting"]) for entry in content["layers"]}
        return Allocation.of(settings), content
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} could not be read as an allocation: {error}") from error


def check_notes(found: Described, meta: nn.Module) -> None:
    """Refuse preprocessing and class names that are not the model's.

    Raises:
        DamagedError: they are not.
    """
    if (names := found.notes.get("classes")) is not None:
        _check_classes(names, meta)
    if (noted := found.notes.get("preprocessing")) is not None:
        _check_preprocessing(noted, meta)


def readable(content: Any, indent: int = 0) -> str:
    """Return JSON with a line for each innermost list or object.

    >>> print(readable({"layers": [{"name": "fc1", "setting": 8}]}))
    {
     "layers": [
      {"name": "fc1", "setting": 8}
     ]
    }
    """
    inner = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(inner, list) or not any(isinstance(v, (dict, list)) for v in inner):
        return json.dumps(content, allow_nan=False, ensure_ascii=False)
    keys = (
        [f"{json.dumps(k)}: " for k in content] if isinstance(content, dict) else [""] * len(inner)
    )
    start, end = "{}" if isinstance(content, dict) else "[]"
    space = " " * (indent + 1)
    lines = [f"{space}{k}{readable(v, indent + 1)}" for k, v in zip(keys, inner, strict=True)]
    return "\n".join((start, ",\n".join(lines), " " * indent + end))


def _layer(manifest: Mapping[str, Any], layer: Layer) -> dict[str, Any]:
    activation = manifest["activations"][layer.name]
    weight = manifest["weights"].get(layer.name)
    setting = Setting(
        weight["bits"] if weight else None,
        activation["bits"],
        activation["num_groups"] if layer.grouped else None,
    )
    costs = (manifest["notes"].get("costs") or {}).get(layer.name)
    return {
        "name": layer.name,
        "kind": layer.kind.value,
        "setting": str(setting),
        "slices": activation["slices"],
        "costs": costs,
    }


def _scheme(manifest: Mapping[str, Any], layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Return how the model is quantized; a part that differs from layer to layer is None."""

    def common(kind: Kind, field: str) -> Any:
        entries = (manifest["activations"][la.name].get(field) for la in layers if la.kind is kind)
        values = set(entries)
        return values.pop() if len(values) == 1 else None

    rotation = rotation_of(manifest["rotated"], layers)
    return {
        "inputs": _INPUTS.get(common(Kind.LINEAR, "slices")),
        "softmax": _SOFTMAX.get(common(Kind.SOFTMAX, "slices")),
        "assignment": common(Kind.LINEAR, "assignment"),
        "rotation": None if rotation is None else rotation.value,
        "weights": manifest["notes"].get("weight_method"),
    }


def _check_classes(names: Any, meta: Any) -> None:
    good = isinstance(names, list) and all(
        isinstance(name, str) and 0 < len(name) <= _MOST_NAME for name in names
    )
    if not good or len(names) != meta.num_classes:
        raise DamagedError(
            MANIFEST,
            f"`notes.classes` must be the names of {meta.num_classes} classes, but are not",
        )


def _check_preprocessing(noted: Any, meta: Any) -> None:
    size = [meta.patch_embed.proj.in_channels, *meta.patch_embed.img_size]
    config = noted.get("config") if isinstance(noted, dict) else None
    known = {"config", "num_classes"}, {"config", "num_classes", "classes", "order"}
    if not isinstance(config, dict) or noted.keys() not in known:
        raise _odd("", "hold config, num_classes, and maybe classes and order", noted)
    if odd := sorted(config.keys() ^ _CONFIG):
        raise _odd(".config", f"hold {', '.join(sorted(_CONFIG))}", odd[0])
    rules: dict[str, tuple[bool, str]] = {
        "input_size": (_list(config["input_size"]) == size, f"be {size}"),
        "mean": (_numbers(config["mean"], size[0]), "be a number for each channel"),
        "std": (
            _numbers(config["std"], size[0]) and min(config["std"]) > 0,
            "be a number above 0 for each channel",
        ),
        "crop_pct": (
            _numbers([config["crop_pct"]], 1) and 0 < config["crop_pct"] <= 4,
            "be a share",
        ),
        "interpolation": (config["interpolation"] in _INTERPOLATIONS, "be one of timm's"),
        "crop_mode": (config["crop_mode"] in _CROPS, f"be one of {', '.join(_CROPS)}"),
    }
    for name, (holds, rule) in rules.items():
        if not holds:
            raise _odd(f".config.{name}", rule, config[name])
    if type(noted["num_classes"]) is not int or noted["num_classes"] != meta.num_classes:
        raise _odd(".num_classes", f"be {meta.num_classes}", noted["num_classes"])
    if noted.get("order", _ORDERS[0]) not in _ORDERS:
        raise _odd(".order", f"be one of {', '.join(_ORDERS)}", noted["order"])
    numbers = noted.get("classes")
    if numbers is not None and not _are_classes(numbers, meta.num_classes):
        raise _odd(".classes", f"be names with numbers below {meta.num_classes}", numbers)


def _are_classes(numbers: Any, count: int) -> bool:
    """Return whether these are names of classes, each with a class of the model."""
    return isinstance(numbers, dict) and all(
        type(number) is int and 0 <= number < count for number in numbers.values()
    )


def _odd(place: str, rule: str, value: Any) -> DamagedError:
    return DamagedError(MANIFEST, f"`notes.preprocessing{place}` must {rule}, but is {value!r:.60}")


def _list(value: Any) -> Any:
    return value if isinstance(value, list) and all(type(n) is int for n in value) else None


def _numbers(values: Any, count: int) -> bool:
    """Return whether these are so many finite numbers of a usual size."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(
        type(value) in (int, float) and math.isfinite(value) and abs(value) <= 1000
        for value in values
    )
