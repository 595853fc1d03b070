"""A setting: the bits and the number of groups that one layer gets.

Settings are written w4a6g8: weight bits, activation bits, number of groups, each part only where
the layer has it. A whole number n, in YAML, JSON or MLflow, means n groups.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from igq.errors import InvalidArgumentError
from igq.layer import Layer

_LABEL = re.compile(r"(?:w(\d+))?(?:a(\d+))?(?:g(\d+))?")


@dataclass(frozen=True)
class Setting:
    """Bits and number of groups of a layer; None: the layer has no such part to choose.

    >>> str(Setting(4, 6, 8)), str(Setting(num_groups=8)), Setting.parse("w4a6g8").num_groups
    ('w4a6g8', '8', 8)
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    num_groups: int | None = None

    def __str__(self) -> str:
        if self.weight_bits is None and self.activation_bits is None:
            return "" if self.num_groups is None else str(self.num_groups)
        values = {"w": self.weight_bits, "a": self.activation_bits, "g": self.num_groups}
        return "".join(f"{key}{value}" for key, value in values.items() if value is not None)

    @classmethod
    def parse(cls, written: "int | str | Setting") -> "Setting":
        """Return the setting that a number of groups or a label stands for.

        Raises:
            InvalidArgumentError: it is neither.

        >>> Setting.parse(8) == Setting.parse("8") == Setting.parse("g8") == Setting(num_groups=8)
        True
        """
        if isinstance(written, Setting):
            return written
        if isinstance(written, int):
            return cls(num_groups=written)
        if written.isdecimal():
            return cls(num_groups=int(written))
        match = _LABEL.fullmatch(written)
        if not written or match is None:
            raise InvalidArgumentError(
                f"a setting must be written like w4a6g8 or 8, but got {written!r}."
            )
        return cls(*(None if part is None else int(part) for part in match.groups()))

    def limited_to(self, like: "Setting") -> "Setting":
        """Return the parts that `like` has too: those that a layer offers, of its tie's setting.

        >>> str(Setting(4, 6, 8).limited_to(Setting(weight_bits=3)))
        'w4'
        """
        return Setting(
            None if like.weight_bits is None else self.weight_bits,
            None if like.activation_bits is None else self.activation_bits,
            None if like.num_groups is None else self.num_groups,
        )

    @property
    def plain(self) -> int | str:
        """The setting as JSON holds it: a whole number where only groups are chosen.

        >>> Setting(num_groups=8).plain, Setting(4, 6, 8).plain
        (8, 'w4a6g8')
        """
        text = str(self)
        return int(text) if text.isdecimal() else text


def plain(allocation: Mapping[str, Setting]) -> dict[str, int | str]:
    """Return an allocation as JSON holds it.

    >>> plain({"fc1": Setting(num_groups=8), "fc2": Setting(4, 6, 8)})
    {'fc1': 8, 'fc2': 'w4a6g8'}
    """
    return {name: setting.plain for name, setting in allocation.items()}


@dataclass(frozen=True)
class Options:
    """The bits and numbers of groups that settings are made of.

    With one number of bits each, only groups are searched and a setting is a number of groups.

    >>> from igq.layer import Kind
    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> [str(setting) for setting in Options((4,), (4,), (1, 2)).settings([fc])]
    ['1', '2']
    >>> [str(s) for s in Options((3, 4), (4,), (2,)).settings([fc])]
    ['w3a4g2', 'w4a4g2']
    """

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    num_groups: tuple[int, ...]

    @property
    def searches_bits(self) -> bool:
        """Whether bits are chosen for each layer beside groups."""
        return len(self.weight_bits) > 1 or len(self.activation_bits) > 1

    def settings(self, layers: Iterable[Layer]) -> list[Setting]:
        """Return the settings of layers that share one: each part that any of them has."""
        layers = list(layers)
        none: tuple[int | None, ...] = (None,)
        weighted = self.searches_bits and any(layer.weighted for layer in layers)
        free = self.searches_bits and any(layer.bits is None for layer in layers)
        grouped = any(layer.grouped for layer in layers)
        parts = product(
            self.weight_bits if weighted else none,
            self.activation_bits if free else none,
            self.num_groups if grouped else none,
        )
        return [Setting(*part) for part in parts]
