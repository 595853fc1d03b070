"""The command `igq reproduce`: the authors' table beside the user's images."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from igq.scheme import (
    Assignment,
    InputMethod,
    Rotation,
    Scheme,
    SoftmaxMethod,
    WeightMethod,
)
from pipeline.cli.options import EngineChoice, console, loading, progress
from pipeline.paths import check_source
from pipeline.study.request import Engine

Method = typer.Option(help="As in a search space; the default is the paper's way.")


def reproduce(
    images: Annotated[list[str], typer.Option(help="Evaluation images; may be given repeatedly.")],
    calibration: Annotated[
        str | None, typer.Option(help="Calibration images. [default: the first --images]")
    ] = None,
    weights_dir: Annotated[
        Path | None, typer.Option(help="Folder of MODEL.safetensors. [default: timm's hub]")
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help="3, 4 or 6; repeatable. [default: 4 and 6]")
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="Repeatable. [default: all]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Calibration draws.")] = 5,
    most_images: Annotated[
        int | None, typer.Option(min=1, help="Images of each set. [default: all]")
    ] = None,
    weight_method: Annotated[WeightMethod, Method] = WeightMethod.NEAREST,
    softmax_method: Annotated[SoftmaxMethod, Method] = SoftmaxMethod.ROWS,
    assignment: Annotated[Assignment, Method] = Assignment.NEAREST,
    input_method: Annotated[InputMethod, Method] = InputMethod.CHANNELS,
    rotation: Annotated[Rotation, Method] = Rotation.NONE,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
    engine: EngineChoice = Engine.AUTO,
) -> None:
    """Print the authors' ImageNet table beside what this quantizer keeps on your images."""
    for source in (*images, calibration):
        check_source(source)
    loading("torch", "timm")
    from pipeline.files import write_json
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.science import reproduction
    from pipeline.science.tables import reproduction_table

    experiment = reproduction.Experiment(
        tuple(images),
        calibration or images[0],
        weights_dir,
        tuple(bits or reproduction.Experiment.bits),
        tuple(column or reproduction.Experiment.columns),
        seeds,
        most_images,
        engine,
        Scheme(input_method, softmax_method, assignment, rotation, weight_method),
    )
    cells = []
    with TerminalDisplay(progress) as display:
        for cell in reproduction.reproduce(experiment, display):
            cells.append(cell)
            if out is not None:
                write_json(out, [asdict(cell) for cell in cells])
    console.print(reproduction_table(cells))
