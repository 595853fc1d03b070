"""The console that commands print on, and options that several of them take."""

import codecs
import io
import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.study.request import Engine

_PLAIN = {"±": "+/-", "…": "...", "×": "x", "→": "->", "−": "-", "–": "-", "’": "'"}


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
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="plainly")


console = Console(width=None if sys.stdout.isatty() else 132)

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
    """Print plain data as JSON, each character as any terminal has it."""
    print(json.dumps(content, indent=1, allow_nan=False))
