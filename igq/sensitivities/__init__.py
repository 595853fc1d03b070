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
    Sums,
    batch_sums,
    fisher_draw,
    predicted_batches,
    predicted_from,
    predicted_passes,
    predicted_sensitivity,
)

__all__ = [
    "DRAWS",
    "Parts",
    "Sums",
    "batch_sums",
    "composed_sensitivity",
    "fisher_draw",
    "measure_parts",
    "parts_passes",
    "predicted_batches",
    "predicted_from",
    "predicted_passes",
    "predicted_sensitivity",
    "sensitivity",
    "sensitivity_passes",
]
