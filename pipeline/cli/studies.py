"""The commands of studies: `igq search`, `igq compare` and `igq report`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.completion import complete_space
from pipeline.cli.options import (
    AsJson,
    CheckpointKey,
    Classes,
    EngineChoice,
    console,
    loading,
    print_json,
    progress,
)
from pipeline.cli.signals import stopping
from pipeline.files import read_json
from pipeline.paths import check_source, check_weights_file
from pipeline.study.folder import Folder, check_folder
from pipeline.study.request import Engine, Request, Sampler
from search_spaces import load

LIBRARIES = ("torch", "timm", "ray", "mlflow")
"""Packages that a search loads, which takes seconds."""

Out = Annotated[Path | None, typer.Option(help="Folder of the study. [default: studies/SPACE]")]


def search(
    space: Annotated[
        str,
        typer.Argument(
            help="A bundled space (igq spaces), or a YAML file.", autocompletion=complete_space
        ),
    ],
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder of class folders, CSV or JSON of labels, `digits`, or NAME:ROOT of timm's."
        ),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Calibration images, where not drawn from --images.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Validation images, where not drawn from --images.")
    ] = None,
    classes: Classes = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local file. [default: the space's, or timm's hub]")
    ] = None,
    checkpoint_key: CheckpointKey = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of --weights. [default: as they have]")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="[default: the space's]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at once. [default: one per GPU, or else per core]"),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Ray cluster to join. [default: start Ray here]")
    ] = None,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI. [default: sqlite in --out]")
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment of the study.")] = "igq",
    out: Out = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of images and proposals.")] = 0,
    sampler: Annotated[Sampler, typer.Option(help="Who proposes.")] = Sampler.SURROGATE,
    engine: EngineChoice = Engine.AUTO,
    seeds: Annotated[
        int, typer.Option(min=1, help="Studies to run, with seeds from --seed on; compared.")
    ] = 1,
    front: Annotated[
        bool, typer.Option("--front", help="KL for a range of budgets around the space's.")
    ] = False,
    rivals: Annotated[
        bool,
        typer.Option(help="Give random search and a repaired ILP as much compute, to compare."),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study in --out.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print choices, passes, time, memory and places; start none."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search for the allocation of least KL within the budget of a search space.

    With --seeds N, --out holds a study for each seed: seed-0, seed-1 and so on.
    """
    loaded = load(space)
    request = Request(
        space=loaded,
        out=out or Path("studies") / loaded.name,
        weights=weights,
        images=images,
        calibration=calibration,
        validation=validation,
        classes=classes,
        checkpoint_key=checkpoint_key,
        num_classes=num_classes,
        trials=trials,
        seed=seed,
        sampler=sampler,
        engine=engine,
        rivals=rivals,
        front=front,
        resume=resume,
    )
    requests = request.over_seeds(seeds)
    _check(requests)
    if plan:
        _plan(request, (workers, cluster, tracking, seeds), as_json)
    else:
        _search(requests, (workers, cluster), (tracking, experiment), as_json)


def _check(requests: tuple[Request, ...]) -> None:
    """Refuse paths that are not there, before anything that takes seconds to load.

    Raises:
        IgqError: a path of the requests is wrong.
    """
    first = requests[0]
    for source in (first.images, first.calibration, first.validation):
        check_source(source)
    check_weights_file(first.weights)
    for request in requests:
        check_folder(Folder(request.out), request.resume)


def _plan(
    request: Request, means: tuple[int | None, str | None, str | None, int], as_json: bool
) -> None:
    loading("torch", "timm", "optuna", *(["ray"] if means[1] else []))
    from pipeline.commands.studies.plan import Means, plan
    from pipeline.forecast.tables import choices_lines, resources_lines, steps_table
    from pipeline.reports.progress import TerminalDisplay

    with TerminalDisplay(progress) as display:
        forecast = plan(request, Means(*means), display)
    if as_json:
        print_json(forecast.json())
        return
    for line in choices_lines(forecast):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(steps_table(forecast))
    for line in resources_lines(forecast):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    less = "Less: --no-rivals, fewer --trials; in the space fewer images or num_groups, tied: kind."
    console.print(less, soft_wrap=True, highlight=False)
    start = shlex.join(word for word in sys.argv[1:] if word != "--plan")
    console.print(f"Nothing was written. Start: igq {start}", soft_wrap=True, highlight=False)


def _search(
    requests: tuple[Request, ...],
    where: tuple[int | None, str | None],
    tracked: tuple[str | None, str],
    as_json: bool,
) -> None:
    """Run one search after the other, and compare them where there are several."""
    loading(*LIBRARIES)
    from pipeline.cli.show import result_json, show
    from pipeline.cluster.ray import RayCluster
    from pipeline.commands.studies.search import run
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.tracking import sqlite_uri
    from pipeline.tracking.mlflow import MlflowTracker

    (workers, cluster), (tracking, experiment) = where, tracked
    out = requests[0].out if len(requests) == 1 else requests[0].out.parent
    tracker = MlflowTracker(tracking or sqlite_uri(out), experiment)
    again = [word for word in sys.argv[1:] if word != "--resume"]
    stopping.to_go_on = f"igq {shlex.join(again)} --resume"
    found = []
    for request in requests:
        with TerminalDisplay(progress) as display:
            result = run(request, RayCluster(cluster, workers), tracker, display)
        if as_json:
            found.append(result_json(result, tracker.location))
        else:
            show(result, request.front, tracker.location, console)
    if as_json:
        compared = _compared([request.out for request in requests]) if len(found) > 1 else []
        print_json({"studies": found, "compared": compared} if compared else found[0])
    elif len(requests) > 1:
        compare([request.out for request in requests], None)


def compare(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies that have ended.")],
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw the first table in.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what searches found with their rivals, and with each other, on unseen images.

    Studies that differ in their seed alone are one table, with intervals over seeds.
    """
    check_studies(studies)
    loading("torch", "scipy")
    from pipeline.analysis.across_studies import compare_studies
    from pipeline.reports.tables import comparison_table

    tables = compare_studies(studies)
    if as_json:
        print_json([table.json() for table in tables])
    else:
        for table in tables:
            top1 = table.reference_top1
            console.print(comparison_table(table.rows, table.title, table.over, top1))
    if plot is not None:
        from pipeline.reports.figures import draw_comparison

        drawn = draw_comparison(plot, tables[0].rows, tables[0].over)
        (progress if as_json else console).print(f"Figure: {drawn}", soft_wrap=True)


def _compared(studies: list[Path]) -> list[object]:
    from pipeline.analysis.across_studies import compare_studies

    return [table.json() for table in compare_studies(studies)]


def report(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file. [default: report.html in the study, or here]")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The same weights, where the file was moved.")
    ] = None,
) -> None:
    """Write what searches found, how they went and how to reproduce them, into one HTML file."""
    check_studies(studies)
    check_weights_file(weights)
    loading("torch", "matplotlib")
    from pipeline.commands.studies.report import report as write

    console.print(f"Report: {write(studies, out, weights)}", soft_wrap=True)


def check_studies(folders: list[Path]) -> None:
    """Refuse folders without a study, before anything that takes seconds to load.

    Raises:
        StudyError: one has none, or it is damaged.
    """
    for folder in folders:
        read_json(Folder(folder).study)
