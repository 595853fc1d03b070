"""Artifacts of older versions.

In schema 1 groups are picked by the nearest bounds; before 3 nothing is rotated, before 4 no keys
are grouped. Early artifacts have one range for each head of q, k and v, which nothing makes today.
"""

from collections.abc import Mapping
from typing import Any

from igq.grouping import Grouping, PerSlice, tagged
from igq.scheme import Assignment

READABLE = (1, 2, 3, 4)
"""The schemas that can be read."""
HEADS = PerSlice("heads", (-2, -1))
"""q, k or v, (images, heads, tokens, width): each head."""


def grouping_noted(noted: Mapping[str, Any]) -> Grouping:
    """Return the grouping that a manifest of any schema notes for an activation.

    Raises:
        KeyError: there is no such grouping.
        ValueError: there is no such rule of assignment.
    """
    if noted["slices"] == HEADS.tag:
        return HEADS
    return tagged(noted["slices"], Assignment(noted.get("assignment", Assignment.NEAREST)))
