"""The console that commands print on, and options that several of them take."""

import codecs
import io
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Annotated, Any

import typer
from rich.console import Console

from igq.errors import IgqWarning
from pipeline.study.request import Engine

_PLAIN = {"±": "+/-", "…": "...", "×": "x", "→": "->", "−": "-", "–": "-", "’": "'"}

_PYTHON_S_OWN = ("strict", "surrogateescape", "backslashreplace")
"""How Python writes what a stream cannot encode, unless PYTHONIOENCODING says otherwise: stdout of
most locales, that of the C locale, stderr."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Write characters that a terminal does not have in others that it has."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(letter, "-" if "─" <= letter <= "╿" else "?") for letter in text
    ), error.end


def write_plainly() -> None:
    """Have both streams write what they cannot encode in plain characters."""
    codecs.register_error("plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _PYTHON_S_OWN:
            stream.reconfigure(errors="plainly")


console = Console(highlight=False)
"""Results, on stdout: of 80 columns where it is no terminal, unless COLUMNS says otherwise."""
progress = Console(stderr=True, highlight=False)
"""Progress, remarks and warnings, on stderr."""


@contextmanager
def remarks() -> Iterator[None]:
    """Have warnings of igq's own be a line on stderr, without a place in the code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, IgqWarning):
                progress.print(f"igq: {message}", soft_wrap=True, highlight=False, markup=False)
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = say
        yield


def loading(*packages: str) -> None:
    """Say which packages are loaded, which takes seconds; nothing where they are already."""
    if missing := [package for package in packages if package not in sys.modules]:
        progress.print(f"loading {', '.join(missing)} ...", soft_wrap=True, highlight=False)


Classes = Annotated[
    str | None,
    typer.Option(help="natural or alphabetical order of class folders, or a FILE of class names."),
]

CheckpointKey = Annotated[
    str | None,
    typer.Option(help="Set of weights to read of a checkpoint. [default: the moving average]"),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

EngineChoice = Annotated[
    Engine, typer.Option(help="How models are computed; auto compiles where that pays.")
]


def print_json(content: Any) -> None:
    """Print plain data as JSON that any terminal has the characters of; null for NaN."""
    print(json.dumps(_finite(content), indent=1, allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
