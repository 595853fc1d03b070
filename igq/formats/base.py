"""Formats: ways of writing a quantized model, by name.

To add a format, write a file or folder with a function of this type, and name it in `FORMATS`. A
format is imported when it is first asked for, so that only its users need what it imports.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igq.errors import ArtifactError, InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

Format = Callable[["nn.Module", Path, Mapping[str, Any]], Path]
"""Writes a quantized model with notes to a new path, whole or not at all, and returns the path."""

FORMATS: Mapping[str, str] = {
    "native": "igq.formats.native:save",
    "onnx": "igq.formats.onnx:write_onnx",
    "onnx-igq": "igq.formats.onnx:write_onnx_igq",
    "pt2": "igq.formats.pt2:write_pt2",
}
"""Name -> module and function that write it."""


def check_format(name: str) -> None:
    """Refuse a name that is no format's.

    Raises:
        InvalidArgumentError: it is none.

    >>> check_format("native")
    """
    if name not in FORMATS:
        raise InvalidArgumentError(
            f"`format` must be one of {', '.join(FORMATS)}, but got {name!r}."
        )


def formats_in(names: str) -> tuple[str, ...]:
    """Return the names of formats that are separated by commas.

    Raises:
        InvalidArgumentError: one is no format's, or is there twice.

    >>> formats_in("onnx, native")
    ('onnx', 'native')
    """
    found = tuple(name.strip() for name in names.split(","))
    for name in found:
        check_format(name)
    if len(set(found)) < len(found):
        raise InvalidArgumentError(f"`format` must name each format once, but got {names!r}.")
    return found


def format_named(name: str) -> Format:
    """Return the format of this name.

    Raises:
        ArtifactError: a package that the format needs is not installed.
        InvalidArgumentError: there is no such format.

    >>> import igq
    >>> format_named("native") is igq.save
    True
    """
    check_format(name)
    module, _, function = FORMATS[name].partition(":")
    try:
        write: Format = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"the format {name} needs the package {error.name}, which is not installed."
        ) from error
    return write
