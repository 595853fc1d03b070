"""The commands of exported models: `igq evaluate`, `igq apply` and `igq verify`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import CheckpointKey, Classes, EngineChoice, console
from pipeline.study.request import Engine


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
