"""Compare what a study leaves behind: exact for all but floats, which may differ by rounding."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PASSING = frozenset({"worker_id", "datetime_start", "datetime_complete", "seconds"})
"""Keys whose values are of one run: processes and clocks."""
RELATIVE, ABSOLUTE = 1e-3, 1e-7
MOST = 20
"""Differences that are listed; the first few tell the story."""


def differences(expected: Any, actual: Any, at: str = "") -> list[str]:
    """List where two pieces of plain data differ, each as a path and both values.

    >>> differences({"kl": 0.5, "trial": 3}, {"kl": 0.50001, "trial": 4})
    ['/trial: 3 was recorded, 4 found']
    >>> differences([1, 2], [1])
    [': 2 entries were recorded, 1 found']
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        return _of_mappings(expected, actual, at)
    if isinstance(expected, list) and isinstance(actual, list):
        return _of_lists(expected, actual, at)
    if _same(expected, actual):
        return []
    return [f"{at}: {expected!r} was recorded, {actual!r} found"]


def listed(found: Sequence[str]) -> str:
    """Format differences for a person: the first few, and how many there are."""
    return "\n".join([f"{len(found)} differences", *found[:MOST]])


def _of_mappings(expected: Mapping[str, Any], actual: Mapping[str, Any], at: str) -> list[str]:
    found = []
    for key in _kept([*expected, *(key for key in actual if key not in expected)]):
        if key not in actual:
            found.append(f"{at}/{key}: {expected[key]!r} was recorded, nothing found")
        elif key not in expected:
            found.append(f"{at}/{key}: nothing was recorded, {actual[key]!r} found")
        else:
            found += differences(expected[key], actual[key], f"{at}/{key}")
    return found


def _kept(keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key not in PASSING]


def _of_lists(expected: list[Any], actual: list[Any], at: str) -> list[str]:
    found = []
    if len(expected) != len(actual):
        found.append(f"{at}: {len(expected)} entries were recorded, {len(actual)} found")
    for place, (one, other) in enumerate(zip(expected, actual, strict=False)):
        found += differences(one, other, f"{at}/{place}")
    return found


def _same(expected: Any, actual: Any) -> bool:
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, float):
        close = math.isclose(expected, actual, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return close or (math.isnan(expected) and math.isnan(actual))
    return bool(expected == actual)
