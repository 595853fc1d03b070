"""The console that commands print on, and options that several of them take."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from pipeline.study.request import Engine

console = Console(width=None if sys.stdout.isatty() else 132)

Classes = Annotated[
    str | None,
    typer.Option(help="natural or alphabetical order of class folders, or a FILE of class names."),
]

CheckpointKey = Annotated[
    str | None,
    typer.Option(help="Set of weights to read of a checkpoint. [default: the moving average]"),
]

EngineChoice = Annotated[
    Engine, typer.Option(help="How models are computed; auto compiles where that pays.")
]
