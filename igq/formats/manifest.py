"""The manifest of an artifact: a model in words, as JSON."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from igq.allocation import Allocation
from igq.grouping import GroupQuantizer, Quantizer, SliceQuantizer
from igq.layer import grouped
from igq.quantized import quantized_weights, quantizers, rotated_layers
from igq.settings import plain
from igq.vit import architecture, layers

SCHEMA = 4
FORMAT = "igq-artifact"


def manifest_of(model: nn.Module, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a quantized model.

    Raises:
        UnsupportedModelError: the model could not be made again from its timm name.
    """
    made = architecture(model)
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "model": {"name": made.name, "arguments": dict(made.arguments)},
        "allocation": plain(allocation_of(model)),
        "activations": {
            name: {"bits": q.bits, "slices": q.grouping.tag, **_bounds(q)}
            for name, q in quantizers(model).items()
        },
        "weights": {name: {"bits": w.bits} for name, w in quantized_weights(model).items()},
        "rotated": rotated_layers(model),
        "notes": dict(notes),
    }


def allocation_of(model: nn.Module) -> Allocation:
    """Return the number of groups of each grouped layer of a quantized model.

    A layer of which every slice has a range of its own, the limit of many groups, is left out.
    """
    held = quantizers(model)
    found = {la.name: held[la.name] for la in grouped(layers(model)) if la.name in held}
    return Allocation.of({name: q.num_groups for name, q in found.items() if _counted(q)})


def _counted(quantizer: Quantizer) -> bool:
    return isinstance(quantizer, GroupQuantizer) or not quantizer.grouping.fitted


def _bounds(quantizer: Quantizer) -> dict[str, str | int]:
    """Return where an activation's bounds come from, and how slices pick them."""
    if isinstance(quantizer, SliceQuantizer):
        return {"bounds": "own", "num_groups": quantizer.num_groups}
    return {"bounds": "fitted", "assignment": quantizer.grouping.assignment.value}
