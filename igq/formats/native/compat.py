"""Artifacts of older versions.

In schema 1 groups are picked by the nearest bounds; before 3 nothing is rotated, before 4 no keys
are grouped, before 5 a code takes a byte and no file has a digest. Early artifacts have one range
for each head of q, k and v, and fixed bounds for the classifier's input, which nothing makes today.
"""

from collections.abc import Mapping
from typing import Any

from igq.grouping import Grouping, PerSlice, Whole
from igq.layer import Kind
from igq.scheme import Assignment

READABLE = (1, 2, 3, 4, 5)
"""The schemas that can be read."""
SEALED = 5
"""The first schema with digests."""
HEADS = PerSlice("heads", (-2, -1))
"""q, k or v, (images, heads, tokens, width): each head."""
EARLIER: Mapping[Kind, Grouping] = {
    Kind.QUERY: HEADS,
    Kind.KEY: HEADS,
    Kind.VALUE: HEADS,
    Kind.HEAD: Whole(),
}
"""Groupings that layers of a kind had before schema 4."""


def upgraded(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of an older schema in the form of today.

    A number of fitted groups is None, as only the tensors tell it.
    """
    activations = manifest.get("activations")
    if isinstance(activations, dict):
        activations = {name: _activation(entry) for name, entry in activations.items()}
    kept = {key: value for key, value in manifest.items() if key != "allocation"}
    return {"rotated": [], **kept, "activations": activations, "versions": {}}


def _activation(entry: Any) -> Any:
    if not isinstance(entry, dict) or entry.get("bounds") == "own":
        return {"num_groups": 1, **entry} if isinstance(entry, dict) else entry
    return {"assignment": Assignment.NEAREST.value, "num_groups": None, **entry}
