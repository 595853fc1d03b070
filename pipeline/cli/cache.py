"""The command that lists and clears the results that studies share."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from pipeline.cli.options import console

LATEST = 10
"""Results that are listed where not all are asked for (our choice)."""


class Action(StrEnum):
    """Of `igq cache`."""

    LIST = "list"
    CLEAR = "clear"


def cache(
    action: Annotated[Action, typer.Argument(help="List them, or remove them.")] = Action.LIST,
    older: Annotated[
        float, typer.Option(min=0.0, help="Clear only what is at least so many days old.")
    ] = 0.0,
    every: Annotated[
        bool, typer.Option("--all", help="List all of them, not the latest ten.")
    ] = False,
) -> None:
    """List or clear the results that searches of the same model and images share.

    They lie in ~/.cache/igq, or in the folder that IGQ_CACHE names.
    """
    from pipeline.commands.machine.cache import age_of, clear_shared, shared_folder, shared_results
    from pipeline.reports.sizes import age, megabytes

    folder = shared_folder()
    if folder is None:
        console.print("Studies share no results: IGQ_CACHE is empty.")
        return
    if action is Action.CLEAR:
        gone = clear_shared(older)
        console.print(f"Cleared {len(gone)} shared results in {folder}.", soft_wrap=True)
        return
    found = shared_results()
    if not found:
        console.print(f"No results are shared yet, in {folder}.", soft_wrap=True)
        return
    table = Table(title=f"Results that studies share, in {folder}")
    for column in ("what for", "size", "age", "used by"):
        table.add_column(column)
    for entry in found if every else found[:LATEST]:
        table.add_row(
            entry.made_for, megabytes(entry.bytes), age(age_of(entry)), "\n".join(entry.used_by)
        )
    console.print(table, soft_wrap=True)
    more = (
        "" if every or len(found) <= LATEST else f"; --all lists the {len(found) - LATEST} others"
    )
    console.print(f"{len(found)} in all, {megabytes(sum(e.bytes for e in found))}{more}.")
