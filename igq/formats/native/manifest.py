"""The manifest of an artifact: a model in words, as JSON, and read back as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import nn

from igq.allocation import Allocation
from igq.arithmetic.affine import MAX_BITS, MIN_BITS
from igq.formats.integrity import DamagedError
from igq.formats.native.compat import HEADS
from igq.grouping import Grouping, GroupQuantizer, Quantizer, SliceQuantizer, tagged
from igq.layer import grouped
from igq.quantized import quantized_weights, quantizers, rotated_layers
from igq.scheme import Assignment
from igq.vit import Architecture, architecture, layers

SCHEMA = 5
FORMAT = "igq-artifact"
MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
MOST_GROUPS = 1024
"""The most groups of a layer that a file may name."""
_PACKAGES = {"igq": "igq-vit", "torch": "torch", "timm": "timm"}


@dataclass(frozen=True)
class Activation:
    """An activation's quantizer as a manifest describes it, without its bounds."""

    bits: int
    grouping: Grouping
    fitted: bool
    num_groups: int | None
    """None where only the tensors tell it, as before schema 5."""


@dataclass(frozen=True)
class Described:
    """A quantized model as a manifest describes it, without its tensors."""

    architecture: Architecture
    activations: Mapping[str, Activation]
    weights: Mapping[str, int]
    """Layer name -> bits."""
    rotated: tuple[str, ...]
    versions: Mapping[str, str]
    notes: Mapping[str, Any]


def manifest_of(model: nn.Module, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a quantized model, without its files.

    Raises:
        UnsupportedModelError: the model could not be made again from its timm name.
    """
    made = architecture(model)
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "versions": {name: version(package) for name, package in _PACKAGES.items()},
        "model": {"name": made.name, "arguments": dict(made.arguments)},
        "activations": {
            name: {"bits": q.bits, "slices": q.grouping.tag, **_bounds(q)}
            for name, q in quantizers(model).items()
        },
        "weights": {name: {"bits": w.bits} for name, w in quantized_weights(model).items()},
        "rotated": rotated_layers(model),
        "notes": dict(notes),
    }


def allocation_of(model: nn.Module) -> Allocation:
    """Return the number of groups of each grouped layer of a quantized model.

    A layer of which every slice has a range of its own, the limit of many groups, is left out.
    """
    held = quantizers(model)
    found = {la.name: held[la.name] for la in grouped(layers(model)) if la.name in held}
    return Allocation.of({name: q.num_groups for name, q in found.items() if _counted(q)})


def described(manifest: Mapping[str, Any]) -> Described:
    """Return a manifest's description of its model.

    Raises:
        DamagedError: a part is missing, left over, or has a value that it cannot have.
    """
    names = {"format", "schema", "versions", "model", "activations", "weights", "rotated", "notes"}
    fields("the manifest", manifest, names)
    made = fields("model", manifest["model"], {"name", "arguments"})
    if not isinstance(made["name"], str) or not isinstance(made["arguments"], dict):
        raise DamagedError(MANIFEST, "`model` must be a name and its arguments, but is not")
    activations = entries("activations", manifest["activations"])
    weights = entries("weights", manifest["weights"])
    return Described(
        Architecture(made["name"], made["arguments"]),
        {name: _activation(f"activations.{name}", entry) for name, entry in activations.items()},
        {name: _weight(f"weights.{name}", entry) for name, entry in weights.items()},
        _names("rotated", manifest["rotated"]),
        _versions(manifest["versions"]),
        entries("notes", manifest["notes"]),
    )


def fields(place: str, value: Any, names: set[str]) -> dict[str, Any]:
    """Return an object that has exactly these keys.

    Raises:
        DamagedError: it is no object, or has other keys.
    """
    found = entries(place, value)
    if odd := sorted(found.keys() ^ names):
        has = "lacks" if odd[0] in names else "has"
        raise DamagedError(
            MANIFEST, f"`{place}` must hold {', '.join(sorted(names))}, but {has} {odd[0]!r:.60}"
        )
    return found


def entries(place: str, value: Any) -> dict[str, Any]:
    """Return an object.

    Raises:
        DamagedError: it is none.
    """
    if not isinstance(value, dict):
        raise DamagedError(
            MANIFEST, f"`{place}` must be an object, but is a {type(value).__name__}"
        )
    return value


def whole(place: str, value: Any, least: int, most: int) -> int:
    """Return a whole number within bounds.

    Raises:
        DamagedError: it is none.
    """
    if type(value) is not int or not least <= value <= most:
        raise DamagedError(
            MANIFEST,
            f"`{place}` must be a whole number from {least} to {most}, but is {value!r:.40}",
        )
    return value


def _counted(quantizer: Quantizer) -> bool:
    return isinstance(quantizer, GroupQuantizer) or not quantizer.grouping.fitted


def _bounds(quantizer: Quantizer) -> dict[str, str | int]:
    """Return where an activation's bounds come from, and how slices pick them."""
    if isinstance(quantizer, SliceQuantizer):
        return {"bounds": "own", "num_groups": quantizer.num_groups}
    assignment = quantizer.grouping.assignment.value
    return {"bounds": "fitted", "assignment": assignment, "num_groups": quantizer.num_groups}


def _activation(place: str, value: Any) -> Activation:
    fitted = isinstance(value, dict) and value.get("bounds") == "fitted"
    names = {"bits", "slices", "bounds", "num_groups"} | ({"assignment"} if fitted else set())
    entry = fields(place, value, names)
    if entry["bounds"] not in ("own", "fitted"):
        raise DamagedError(MANIFEST, f"`{place}.bounds` must be own or fitted, but is neither")
    groups = entry["num_groups"]
    if groups is not None or not fitted:
        groups = whole(f"{place}.num_groups", groups, 1, MOST_GROUPS)
    bits = whole(f"{place}.bits", entry["bits"], MIN_BITS, MAX_BITS)
    return Activation(bits, _grouping(place, entry), fitted, groups)


def _grouping(place: str, entry: Mapping[str, Any]) -> Grouping:
    slices = entry["slices"]
    if slices == HEADS.tag:
        return HEADS
    if not isinstance(slices, str):
        raise DamagedError(MANIFEST, f"`{place}.slices` must be a name, but is {slices!r}")
    try:
        return tagged(slices, Assignment(entry.get("assignment", Assignment.NEAREST)))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            MANIFEST, f"`{place}` must name known slices and assignment, but has {error}"
        ) from error


def _weight(place: str, value: Any) -> int:
    return whole(f"{place}.bits", fields(place, value, {"bits"})["bits"], MIN_BITS, MAX_BITS)


def _versions(value: Any) -> dict[str, str]:
    found = entries("versions", value)
    if not all(isinstance(number, str) for number in found.values()):
        raise DamagedError(MANIFEST, "`versions` must be texts, but one is not")
    return found


def _names(place: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DamagedError(MANIFEST, f"`{place}` must be a list of names, but is not")
    return tuple(value)
