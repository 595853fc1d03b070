"""Layers that share a setting: all of a block, all of a kind, or operands of one product."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from igq.layer import Kind, Layer, block_and_place
from igq.settings import Options, Setting

N = TypeVar("N", int, float)

_PARTNERS = {Kind.KEY: "q", Kind.VALUE: "softmax"}
"""Operands of attention that share the bits of the other one of their product."""


class Tie(StrEnum):
    """The layers that share their setting.

    >>> Tie("block") is Tie.BLOCK
    True
    """

    BLOCK = "block"
    """The layers of a block."""
    KIND = "kind"
    """The layers at the same place of every block, such as fc1, qkv or softmax."""


@dataclass(frozen=True)
class Ties(Mapping[str, tuple[str, ...]]):
    """Name of what is chosen once -> the layers that share the choice.

    >>> Ties({"mlp": ("fc1", "fc2")}).expand({"mlp": Setting(num_groups=2)})["fc2"]
    Setting(weight_bits=None, activation_bits=None, num_groups=2)
    """

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self.members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def expand(self, allocation: Mapping[str, Setting]) -> dict[str, Setting]:
        """Return an allocation of what is chosen as one of the model's layers."""
        return {
            layer: setting
            for name, setting in allocation.items()
            for layer in self.members.get(name, (name,))
        }

    def sum(self, table: Mapping[str, Mapping[Setting, N]]) -> dict[str, dict[Setting, N]]:
        """Sum a table of costs or sensitivities over the layers of each tie.

        >>> two = Setting(num_groups=2)
        >>> Ties({"mlp": ("fc1", "fc2")}).sum({"fc1": {two: 0.5}, "fc2": {two: 0.25}})["mlp"][two]
        0.75
        """
        return {
            name: {
                setting: sum(table[layer][setting] for layer in layers)
                for setting in table[layers[0]]
            }
            for name, layers in self.members.items()
        }

    def entries(
        self, layers: Iterable[Layer], options: Options, cost: Callable[[Layer, Setting], N]
    ) -> dict[str, dict[Setting, N]]:
        """Return the summed cost of every setting of each tie: the entries of a cost table."""
        named = {layer.name: layer for layer in layers}
        costs: dict[str, dict[Setting, N]] = {}
        for shared in self.members.values():
            members = [named[name] for name in shared]
            settings = options.settings(members)
            costs |= {member.name: {s: cost(member, s) for s in settings} for member in members}
        return self.sum(costs)

    @property
    def in_order(self) -> bool:
        """Whether ties stand in the order of the forward pass: none spans blocks."""
        blocks = ({block_and_place(m)[0] for m in layers} for layers in self.members.values())
        return all(len(spanned) == 1 for spanned in blocks)


def tie_layers(layers: Iterable[Layer], options: Options, tie: Tie | None = None) -> Ties:
    """Return the layers that share a setting; without a tie each layer has its own.

    Where bits are searched every layer is chosen for, and the two operands of an attention product
    share their bits: k has those of q, v those of the softmax map, so that each choice has a cost
    of its own. Elsewhere only grouped layers are chosen for.

    >>> shape = {"tokens": 1, "channels": 1, "outputs": 1}
    >>> names = ("blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1")
    >>> fcs = [Layer(name, Kind.LINEAR, **shape) for name in names]
    >>> dict(tie_layers(fcs, Options((4,), (4,), (1, 2)), Tie.KIND))
    {'fc1': ('blocks.0.fc1', 'blocks.1.fc1'), 'fc2': ('blocks.0.fc2',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if not (options.searches_bits or layer.grouped):
            continue
        name = layer.name
        if options.searches_bits and layer.kind in _PARTNERS:
            name = f"{name.rpartition('.')[0]}.{_PARTNERS[layer.kind]}"
        block, place = block_and_place(name)
        shared = {Tie.BLOCK: block or place, Tie.KIND: place, None: name}[tie]
        found[shared] = (*found.get(shared, ()), layer.name)
    return Ties(found)
