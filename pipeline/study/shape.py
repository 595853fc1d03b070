"""The shape of an allocation: its mean settings by kind of layer and by depth."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from statistics import fmean

from igq import Setting
from igq.layer import block_and_place

THIRDS = ("1_first", "2_middle", "3_last")
"""The names of the thirds of a model's depth, which sort in the order of depth."""
_PARTS = {"num_groups": "groups", "weight_bits": "weight_bits", "activation_bits": "bits"}


def kind_of(name: str) -> str:
    """Return the kind of a layer: the last part of its name.

    >>> kind_of("blocks.0.attn.qkv")
    'qkv'
    """
    return name.rpartition(".")[2]


def means_by_kind(allocation: Mapping[str, Setting]) -> dict[str, float]:
    """Return the mean of each part of a setting over the layers of each kind.

    >>> means_by_kind({"b.0.fc1": Setting(num_groups=2), "b.1.fc1": Setting(num_groups=4)})
    {'groups_by_kind.fc1': 3.0}
    """
    return _means(allocation, "by_kind", kind_of)


def means_by_third(allocation: Mapping[str, Setting]) -> dict[str, float]:
    """Return the mean of each part of a setting over each third of the blocks.

    >>> eight, two = Setting(num_groups=8), Setting(num_groups=2)
    >>> means_by_third({"b.0.fc1": eight, "b.1.fc1": two, "b.2.fc1": two})
    {'groups_by_depth.1_first': 8.0, 'groups_by_depth.2_middle': 2.0, 'groups_by_depth.3_last': 2.0}
    """
    blocks = list(dict.fromkeys(block_and_place(name)[0] for name in allocation))
    third = {block: THIRDS[3 * i // len(blocks)] for i, block in enumerate(blocks)}
    return _means(allocation, "by_depth", lambda name: third[block_and_place(name)[0]])


def _means(
    allocation: Mapping[str, Setting], way: str, of: Callable[[str], str]
) -> dict[str, float]:
    values: dict[str, list[int]] = {}
    for name, setting in allocation.items():
        for part, value in _parts(setting):
            values.setdefault(f"{part}_{way}.{of(name)}", []).append(value)
    return {name: round(fmean(some), 3) for name, some in values.items()}


def _parts(setting: Setting) -> Iterable[tuple[str, int]]:
    for field in fields(setting):
        value = getattr(setting, field.name)
        if value is not None:
            yield _PARTS[field.name], value
