"""Modules run as programs, each in a process of its own that need not import torch again.

A process that has imported what takes seconds, and has no checks of shapes, is kept; each program
runs in a copy of it.
"""

import contextlib
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

IMPORTED = ["igq", "pipeline.commands.studies.search", "pipeline.tracking.mlflow", "timm"]


def run_alone(module: str, arguments: list[str], folder: Path) -> str:
    """Run `python -m module arguments` in a folder and return what it printed.

    Raises:
        AssertionError: it ended with another code than 0; with the end of what it printed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    output = folder / "output.txt"
    process = context.Process(target=_run, args=(module, arguments, folder, output))
    process.start()
    process.join()
    assert process.exitcode == 0, output.read_text()[-3000:]
    return output.read_text()


def _run(module: str, arguments: list[str], folder: Path, output: Path) -> None:
    sys.argv = [module, *arguments]
    os.chdir(folder)
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            runpy.run_module(module, run_name="__main__")
