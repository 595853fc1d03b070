"""Formats: ways of writing a quantized model, by name.

To add a format, write a file with a function of this type and list it in `FORMATS`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from igq.errors import InvalidArgumentError
from igq.formats.native import save
from igq.formats.onnx import write_onnx

Format = Callable[[nn.Module, Path, Mapping[str, Any]], Path]
"""Writes a quantized model with notes to a new path, whole or not at all, and returns the path."""

FORMATS: Mapping[str, Format] = {"native": save, "onnx": write_onnx}
"""Name -> format."""


def format_named(name: str) -> Format:
    """Return the format of this name.

    Raises:
        InvalidArgumentError: there is no such format.

    >>> format_named("native") is save
    True
    """
    if name not in FORMATS:
        raise InvalidArgumentError(
            f"`format` must be one of {', '.join(FORMATS)}, but got {name!r}."
        )
    return FORMATS[name]
