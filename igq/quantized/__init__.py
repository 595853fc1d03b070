"""Quantized models: observed, fitted, put together, and computed fast."""

from igq.grouping import Quantizer
from igq.quantized.acceleration import EAGER, Execution, accelerate, fastest
from igq.quantized.candidates import Candidates, Selection, bounds, fit, with_bounds
from igq.quantized.model import quantize
from igq.quantized.observer import Ranges, observe
from igq.quantized.swap import (
    assemble,
    quantized_weights,
    quantizers,
    rotated,
    rotated_layers,
    set_quantizers,
    set_weights,
    with_rotated,
    with_slots,
)
from igq.quantized.weights import WeightsByBits, quantize_weights, select_weights

__all__ = [
    "EAGER",
    "Candidates",
    "Execution",
    "Quantizer",
    "Ranges",
    "Selection",
    "WeightsByBits",
    "accelerate",
    "assemble",
    "bounds",
    "fastest",
    "fit",
    "observe",
    "quantize",
    "quantize_weights",
    "quantized_weights",
    "quantizers",
    "rotated",
    "rotated_layers",
    "select_weights",
    "set_quantizers",
    "set_weights",
    "with_bounds",
    "with_rotated",
    "with_slots",
]
