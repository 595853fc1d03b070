"""The values that a manifest can have, given the model that it names.

Nothing here allocates a tensor: the model is made on torch's meta device, which holds shapes alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import nn

from igq.formats.integrity import DamagedError
from igq.formats.native.compat import EARLIER
from igq.formats.native.manifest import MANIFEST, Activation, Described
from igq.grouping import Grouping, grouping_of
from igq.layer import Kind, Layer
from igq.quantized import with_rotated, with_slots
from igq.scheme import Assignment, InputMethod, Rotation, Scheme, SoftmaxMethod
from igq.vit import Architecture, layers, remake

MOST_BUFFER_BYTES = 512 << 20
"""The most bytes of a model's constants, such as tables of positions, which no file holds."""
_MOST: Mapping[str, int] = {
    "img_size": 4096,
    "patch_size": 256,
    "in_chans": 1024,
    "num_classes": 1_000_000,
    "embed_dim": 32_768,
    "depth": 256,
    "depths": 256,
    "num_heads": 1024,
    "num_kv_heads": 1024,
    "window_size": 256,
    "mlp_ratio": 64,
}
"""Argument of timm's -> its largest value; it is at least 1, a ratio above 0."""
_MOST_OTHER = 4096
"""The largest value of other arguments, which may be 0."""
_POOLS = ("", "avg", "avgmax", "max", "token", "map")
_SCHEMES = [
    Scheme(inputs, softmax, assignment)
    for inputs, softmax, assignment in product(InputMethod, SoftmaxMethod, Assignment)
]


def skeleton(found: Described, earlier: bool) -> nn.Module:
    """Return the model that a manifest describes, with slots, on the meta device.

    `earlier`: whether layers may have groupings that nothing makes since schema 4.

    Raises:
        DamagedError: timm cannot make it, or the manifest says of it what cannot be.
    """
    check_arguments(found.architecture)
    try:
        with torch.device("meta"):
            model = remake(found.architecture)
        listed = layers(model)
    except Exception as error:  # timm checks no argument: whatever it stumbles over
        raise DamagedError(MANIFEST, f"the model cannot be made: {_line(error)}") from error
    if sum(b.numel() * b.element_size() for b in model.buffers()) > MOST_BUFFER_BYTES:
        most = MOST_BUFFER_BYTES >> 20
        raise DamagedError(MANIFEST, f"the model's constants must take at most {most} MiB")
    check_layers(found, listed, earlier)
    return with_slots(with_rotated(model, found.rotated), lambda layer: nn.Identity())


def check_arguments(made: Architecture) -> None:
    """Refuse arguments of timm's that no model could have.

    Raises:
        DamagedError: one is of another type, or out of bounds.
    """
    for name, value in made.arguments.items():
        if not all(_possible(name, number) for number in _numbers(value)):
            raise DamagedError(
                MANIFEST,
                f"`model.arguments.{name}` must be a value that a model can have, but is "
                f"{value!r:.60}",
            )


def check_layers(found: Described, listed: Sequence[Layer], earlier: bool = False) -> None:
    """Refuse a description that does not fit the layers of its model.

    Raises:
        DamagedError: a layer is missing, unknown, or described as it cannot be.
    """
    _same("activations", found.activations, [layer.name for layer in listed])
    _same("weights", found.weights, [layer.name for layer in listed if layer.weighted])
    for layer in listed:
        _check_activation(layer, found.activations[layer.name], earlier)
    if rotation_of(found.rotated, listed) is None:
        known = ", ".join(Rotation)
        raise DamagedError(
            MANIFEST, f"`rotated` must be the layers that one of {known} rotates, but is not"
        )


def rotation_of(rotated: Sequence[str], listed: Iterable[Layer]) -> Rotation | None:
    """Return the rotation that rotates these layers, or None.

    >>> rotation_of((), [Layer("fc1", Kind.LINEAR, tokens=2, channels=3, outputs=5)]).value
    'none'
    """
    linear = [layer for layer in listed if layer.kind is Kind.LINEAR]
    for rotation in Rotation:
        names = [la.name for la in linear if rotation.includes(la.channels, la.outputs)]
        if list(rotated) == names:
            return rotation
    return None


def _same(place: str, held: Iterable[str], names: Iterable[str]) -> None:
    if odd := sorted(set(held) ^ set(names)):
        raise DamagedError(
            MANIFEST,
            f"`{place}` must name each layer of the model once, but differs in {odd[0]!r:.80}",
        )


def _check_activation(layer: Layer, noted: Activation, earlier: bool) -> None:
    place = f"activations.{layer.name}"
    known = _groupings(layer, earlier)
    if noted.grouping not in known:
        tags = ", ".join(sorted({grouping.tag for grouping in known}))
        raise DamagedError(
            MANIFEST,
            f"`{place}` of kind {layer.kind} must have slices of {tags}, each with an assignment "
            f"that it can have, but has {noted.grouping.tag}",
        )
    if layer.bits is not None and noted.bits != layer.bits:
        raise DamagedError(MANIFEST, f"`{place}.bits` must be {layer.bits}, but is {noted.bits}")
    if noted.fitted != noted.grouping.fitted and not (layer.grouped and noted.grouping.fitted):
        raise DamagedError(
            MANIFEST,
            f"`{place}.bounds` must not be {'fitted' if noted.fitted else 'own'} for slices of "
            f"{noted.grouping.tag}",
        )
    several = layer.grouped and noted.fitted == noted.grouping.fitted
    if noted.num_groups not in (None, 1) and not several:
        raise DamagedError(MANIFEST, f"`{place}.num_groups` must be 1, but is {noted.num_groups}")


def _groupings(layer: Layer, earlier: bool) -> set[Grouping]:
    known = {grouping_of(layer, scheme) for scheme in _SCHEMES}
    return known | ({EARLIER[layer.kind]} if earlier and layer.kind in EARLIER else set())


def _numbers(value: Any) -> Iterator[Any]:
    """Yield the parts of an argument: a list has one for each stage, side, or both."""
    for part in value if isinstance(value, list) else (value,):
        yield from part if isinstance(part, list) else (part,)


def _possible(name: str, value: Any) -> bool:
    if name == "global_pool":
        return value in _POOLS
    if name not in _MOST and (value is None or isinstance(value, bool)):
        return True
    if name.endswith("ratio") and type(value) in (int, float):
        return bool(0 < value <= _MOST[name])
    if name not in _MOST and isinstance(value, float):
        return abs(value) <= _MOST_OTHER
    least = 1 if name in _MOST else 0
    return type(value) is int and least <= value <= _MOST.get(name, _MOST_OTHER)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
