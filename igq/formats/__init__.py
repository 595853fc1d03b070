"""Quantized models on disk: formats by name, and the one that igq reads back."""

from igq.formats.base import FORMATS, Format, format_named
from igq.formats.native import Artifact, Verified, load, read_allocation, save, verify

__all__ = [
    "FORMATS",
    "Artifact",
    "Format",
    "Verified",
    "format_named",
    "load",
    "read_allocation",
    "save",
    "verify",
]
