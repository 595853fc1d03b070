"""Sensitivities of layers: measured, predicted from gradients, or put together from parts."""

from igq.sensitivities.composed import (
    Parts,
    composed_sensitivity,
    measure_parts,
    parts_passes,
)
from igq.sensitivities.measured import sensitivity, sensitivity_passes
from igq.sensitivities.predicted import (
    DRAWS,
    fisher_draw,
    predicted_passes,
    predicted_sensitivity,
)

__all__ = [
    "DRAWS",
    "Parts",
    "composed_sensitivity",
    "fisher_draw",
    "measure_parts",
    "parts_passes",
    "predicted_passes",
    "predicted_sensitivity",
    "sensitivity",
    "sensitivity_passes",
]
