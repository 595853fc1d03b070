"""The commands that look: `igq models`, `igq doctor` and `igq status`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline.cli.completion import complete_model
from pipeline.cli.options import AsJson, console, print_json


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One model, or a pattern: 'deit*'. [default: all]", autocompletion=complete_model
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List timm's vision transformers: which are supported, and why the others are not."""
    from igq.vit import supported_models, why_unsupported

    one = name is not None and not set(name) & set("*?[")
    found = iter([(name, why_unsupported(name))]) if name and one else supported_models(name or "*")
    if as_json:
        print_json(
            {model: {"supported": reason is None, "reason": reason} for model, reason in found}
        )
        return
    total = supported = 0
    for model, reason in found:
        total, supported = total + 1, supported + (reason is None)
        mark = "[green]yes[/]" if reason is None else f"[red]no[/]   {escape(reason)}"
        console.print(f"{model:50s} {mark}", soft_wrap=True, highlight=False)
    if not one:
        console.print(f"{supported} of {total} are supported.")


def doctor(
    out: Annotated[Path, typer.Option(help="Folder that studies go to.")] = Path("studies"),
    cluster: Annotated[str | None, typer.Option(help="HOST:PORT of a Ray cluster.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at what this machine has for searches; exit code 1 where something is amiss."""
    from pipeline.commands.machine.doctor import diagnose

    findings = diagnose(out, cluster)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.good else "[red]amiss[/]"
            line = f"{mark:15s} {finding.name:16s} {escape(finding.said)}"
            console.print(line, soft_wrap=True, highlight=False)
    sys.exit(0 if all(finding.good for finding in findings) else 1)


def status(
    study: Annotated[Path, typer.Argument(help="Folder of a study.")] = Path("studies/demo"),
    as_json: AsJson = False,
) -> None:
    """Tell how far a search is, from another terminal: only the study's folder is read."""
    from pipeline.commands.studies.status import status as look

    found = look(study)
    if as_json:
        print_json(found.json())
    else:
        for line in found.lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
