"""The result of a search on a terminal, or as plain data."""

from collections import Counter
from typing import Any

from rich.console import Console

from pipeline.commands.studies.result import Result
from pipeline.files import read_json
from pipeline.reports.allocations import allocation_table
from pipeline.reports.tables import comparison_table, front_lines
from pipeline.searching.final_round import final_line


def show(result: Result, front: bool, location: str, console: Console) -> None:
    """Print what a search found and the next commands; `location` is where its trials are."""
    if result.validation is not None:
        title = f"On {result.validation.images} images that the search did not see"
        top1 = result.validation.reference_top1
        console.print(comparison_table(result.comparisons, title, "images", top1))
    if result.final is not None:
        console.print(final_line(result.trials, result.final), soft_wrap=True)
    console.print(allocation_table(result.layers, result.best.proposal.allocation))
    folder = result.folder.path
    if front:
        for line in front_lines(result.front):
            console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Trials: {location}", soft_wrap=True)
    if result.folder.figures.exists():
        console.print(f"Figures: {result.folder.figures}", soft_wrap=True)
    console.print(f"Next: igq export {folder} --out artifacts/{folder.name}", soft_wrap=True)
    console.print(f"      igq ui {folder}", soft_wrap=True)


def result_json(result: Result, location: str) -> dict[str, Any]:
    """Return what a search found as plain data: the study's result.json, and where things lie."""
    states = Counter(trial.state.value for trial in result.trials)
    return {
        "study": str(result.folder.path),
        "trials": {"location": location, "ended": len(result.trials), **states},
        **read_json(result.folder.result),
    }
