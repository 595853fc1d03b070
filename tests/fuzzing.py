"""Settings of hypothesis for readers of files from outside.

The seed is kept, so that every run tries the same; `IGQ_FUZZ=100000` tries that many, and
`IGQ_FUZZ_SEED=1` tries others.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TRIES = int(os.environ.get("IGQ_FUZZ", "60"))
SEED = 100 * int(os.environ.get("IGQ_FUZZ_SEED", "0"))
FUZZ = settings(
    max_examples=TRIES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


def refusal(read: Callable[[], object], *errors: type[Exception]) -> str | None:
    """Return the message that a reader refuses with; None where it takes the content."""
    try:
        read()
    except errors as error:
        return str(error)
    return None


def damaged(content: bytes, cut: int, changes: list[tuple[int, int]]) -> bytes:
    """Return content with some bytes changed, and cut off."""
    changed = bytearray(content)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed[: max(1, len(changed) - cut)])


DAMAGE: dict[str, Any] = {
    "cut": st.integers(0, 200) | st.just(0),
    "changes": st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
}


def places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value within plain data."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found: list[tuple[Any, ...]] = []
    for key, value in inner:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += places(value, (*at, key))
    return found


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return plain data with another value at a place; `...` takes the value away."""
    key, *rest = place
    copy = dict(content) if isinstance(content, dict) else list(content)
    if rest:
        copy[key] = changed(content[key], tuple(rest), value)
    elif value is ...:
        del copy[key]
    else:
        copy[key] = value
    return copy


CHANGES = st.tuples(st.integers(0, 10**6), st.just(...) | VALUES)
"""The number of a place, and the value to put there."""


def edited(content: Any, edits: list[tuple[int, Any]]) -> Any:
    """Return plain data with some values changed or taken away."""
    for number, value in edits:
        if not (known := places(content)):
            return content
        content = changed(content, known[number % len(known)], value)
    return content
