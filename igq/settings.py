"""What is chosen for a layer: a number of groups, or that and the bits of its product's operands.

Where only groups are searched a choice is a whole number. Where bits are searched too it is a
`Setting`, written w4a6g8: weight bits, activation bits, number of groups, each only where the
layer has it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from igq.errors import InvalidArgumentError

_LABEL = re.compile(r"(?:w(\d+))?(?:a(\d+))?(?:g(\d+))?")


@dataclass(frozen=True)
class Setting:
    """Bits and number of groups of a layer; None: the layer has no such thing to choose.

    >>> str(Setting(4, 6, 8)), str(Setting(activation_bits=4)), Setting.parse("w4a6g8").num_groups
    ('w4a6g8', 'a4', 8)
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    num_groups: int | None = None

    def __str__(self) -> str:
        values = {"w": self.weight_bits, "a": self.activation_bits, "g": self.num_groups}
        return "".join(f"{key}{value}" for key, value in values.items() if value is not None)

    @classmethod
    def parse(cls, label: str) -> "Setting":
        """The setting that a label stands for.

        Raises:
            InvalidArgumentError: it is none.
        """
        match = _LABEL.fullmatch(label)
        if not label or match is None:
            raise InvalidArgumentError(f"a setting must be written like w4a6g8, but got {label!r}.")
        return cls(*(None if part is None else int(part) for part in match.groups()))


Choice = int | Setting
"""A number of groups, or a setting."""


def plain(allocation: Mapping[str, Choice]) -> dict[str, int | str]:
    """An allocation as JSON can hold it.

    >>> plain({"fc1": 8, "fc2": Setting(4, 6, 8)})
    {'fc1': 8, 'fc2': 'w4a6g8'}
    """
    return {name: c if isinstance(c, int) else str(c) for name, c in allocation.items()}
