"""Modules that take the place of a model's own, with a slot where each activation passes."""

from igq.modules.attention import OPERANDS, Attention, join_heads, split_heads
from igq.modules.products import Conv2d, Linear
from igq.modules.slots import (
    FakeQuantize,
    FakeQuantizeSlices,
    Observer,
    Slot,
    SwitchedFakeQuantize,
    slot_of,
)

__all__ = [
    "OPERANDS",
    "Attention",
    "Conv2d",
    "FakeQuantize",
    "FakeQuantizeSlices",
    "Linear",
    "Observer",
    "Slot",
    "SwitchedFakeQuantize",
    "join_heads",
    "slot_of",
    "split_heads",
]
