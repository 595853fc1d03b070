"""The commands of exported models: `igq export`, `igq evaluate`, `igq apply` and `igq verify`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import CheckpointKey, Classes, EngineChoice, console
from pipeline.study.request import Engine
from search_spaces import parse_budget


def export(
    study: Annotated[Path, typer.Argument(help="Folder of a study.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
    weights: Annotated[
        Path | None, typer.Option(help="The same weights, where the file was moved.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="uniform:6, bops:2.1e10, overhead:3%, latency:14ms. [default: the space's]"
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(help="Format, or several with commas, each a folder in --out.")
    ] = "native",
    trial: Annotated[
        int | None, typer.Option(min=0, help="Number of a trial. [default: the best]")
    ] = None,
) -> None:
    """Write the best allocation of a study as a quantized model."""
    from pipeline.commands.export import export as run

    most = None if budget is None else parse_budget(budget)
    exported = run(study, out, weights, most, format, trial)
    proposal, final_kl = exported.trial.proposal, exported.notes["final_kl"]
    won = "" if final_kl is None else f", {final_kl:.4f} in the final round"
    console.print(
        f"Wrote trial {exported.trial.number} of {study} ({proposal.price}, KL "
        f"{exported.trial.kl:.4f} on search images{won}) to {exported.path}.\n"
        f"Next: igq evaluate {exported.path} --images DIR"
    )


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    images: Annotated[str, typer.Option(help="Folder of class folders, `digits`, or NAME:ROOT.")],
    weights: Annotated[
        Path | None, typer.Option(help="Full-precision weights: adds KL and top-1 kept.")
    ] = None,
    classes: Classes = None,
    checkpoint_key: CheckpointKey = None,
    engine: EngineChoice = Engine.AUTO,
) -> None:
    """Measure an exported model on images."""
    from pipeline.commands.evaluate import evaluate_artifact
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.reports.tables import evaluation_lines

    with TerminalDisplay(console) as display:
        measured = evaluate_artifact(
            artifact, images, weights, display, engine, classes, checkpoint_key
        )
    lines = evaluation_lines(
        measured.score, measured.images, measured.reference_top1, measured.notes
    )
    for line in lines:
        console.print(line)


def apply(
    allocation: Annotated[Path, typer.Argument(help="allocation.json of an artifact.")],
    weights: Annotated[Path, typer.Option(help="The full-precision weights.")],
    images: Annotated[str, typer.Option(help="Source that calibration images were drawn from.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")],
) -> None:
    """Make the model of an allocation.json again, from the same weights and calibration images."""
    from pipeline.commands.apply import apply as run
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(console) as display:
        applied = run(allocation, weights, images, out, display)
    twin = "the original's" if applied.identical else "not the original's, bit for bit"
    console.print(f"Wrote {applied.path}; its tensors are {twin}.", soft_wrap=True)
    console.print(f"Next: igq evaluate {applied.path} --images DIR", soft_wrap=True)


def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder that igq export wrote.")],
    evaluate: Annotated[
        str | None,
        typer.Option(help="Source of the study's images: the noted scores must come out again."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Full-precision weights: compares the KL too.")
    ] = None,
) -> None:
    """Check that an exported model is as it was written; exit with 2 and a reason where not."""
    from pipeline.commands.verify import verify_artifact
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.reports.tables import verification_lines

    with TerminalDisplay(console) as display:
        checked = verify_artifact(artifact, evaluate, weights, display)
    for line in verification_lines(checked.files, checked.score):
        console.print(line, soft_wrap=True, highlight=False)
