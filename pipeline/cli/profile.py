"""The command `igq profile`: the latency of a model's operators on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.completion import complete_space_or_model
from pipeline.cli.options import console, loading, progress


def profile(
    space: Annotated[
        str,
        typer.Argument(
            help="A search space (igq spaces, or a YAML file), or a name of timm.",
            autocompletion=complete_space_or_model,
        ),
    ],
    target: Annotated[str, typer.Option(help="A name of your own for this machine.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("latency.json"),
    rounds: Annotated[int, typer.Option(min=2, help="Rounds, in each of which all run.")] = 50,
    threads: Annotated[int, typer.Option(min=1, help="Threads that the model will have.")] = 1,
    seconds: Annotated[
        float, typer.Option(min=1, help="Above this, numbers of groups are fitted by a line.")
    ] = 600.0,
) -> None:
    """Measure each layer with each setting on this machine: a table for latency budgets."""
    loading("torch", "timm")
    from pipeline.commands.machine.profile import Effort, space_of_model
    from pipeline.commands.machine.profile import profile as run
    from pipeline.reports.profiles import latency_lines
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(progress) as display:
        made = run(space_of_model(space), target, out, display, Effort(rounds, threads, seconds))
    for line in latency_lines(made):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(
        f"Wrote {out}. Next: a space with `budget: {{latency: uniform:8, table: {out}}}`",
        soft_wrap=True,
        highlight=False,
    )
