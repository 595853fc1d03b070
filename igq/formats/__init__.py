"""Quantized models on disk: formats by name, and the one that igq reads back.

Names are looked up when they are first used: which formats there are is known without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from igq.formats.base import FORMATS, Format, check_format, format_named

if TYPE_CHECKING:
    from igq.formats.native import Artifact, Verified, load, read_allocation, save, verify

_NATIVE = ("Artifact", "Verified", "load", "read_allocation", "save", "verify")

__all__ = [
    "FORMATS",
    "Artifact",
    "Format",
    "Verified",
    "check_format",
    "format_named",
    "load",
    "read_allocation",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _NATIVE:
        raise AttributeError(f"module 'igq.formats' has no attribute {name!r}")
    return getattr(import_module("igq.formats.native"), name)
