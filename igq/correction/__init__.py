"""Weights corrected so that predictions change least."""

from igq.correction.gram import grams, rounded_weights
from igq.correction.tuning import Corrected, correct, correction_passes, vectors

__all__ = [
    "Corrected",
    "correct",
    "correction_passes",
    "grams",
    "rounded_weights",
    "vectors",
]
