"""The console that commands print on, and options that several of them take."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from pipeline.study.request import Engine

console = Console(width=None if sys.stdout.isatty() else 132)

EngineChoice = Annotated[
    Engine, typer.Option(help="How models are computed; auto compiles where that pays.")
]
