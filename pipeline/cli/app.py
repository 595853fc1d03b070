"""The command `igq`: parse, call, print.

Exit codes: 0 where all went well; 1 where `igq doctor` finds something amiss, or for an error of
igq's own, which has a traceback; 2 for whatever the user can mend, with one message; 130 for an
interrupted search, which `--resume` goes on with; 143 for one that was told to end.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from igq.errors import IgqError
from pipeline.cli.artifacts import apply, bench, evaluate, export, package, run, verify
from pipeline.cli.cache import cache
from pipeline.cli.inspect import doctor, models
from pipeline.cli.options import (
    CheckpointKey,
    Classes,
    EngineChoice,
    console,
    write_plainly,
)
from pipeline.cli.profile import profile
from pipeline.cli.reproduce import reproduce
from pipeline.cli.signals import catching_signals, stopping
from pipeline.study.request import Engine, Request, Sampler
from search_spaces import SearchSpaceError, load, names

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find how many instance-aware groups each layer of a quantized vision transformer gets.",
)

Out = Annotated[Path | None, typer.Option(help="Folder of the study. [default: studies/SPACE]")]


def main() -> None:
    """Run the command line."""
    write_plainly()
    try:
        with catching_signals():
            app(sys.argv[1:] or ["--help"], standalone_mode=True)
    except (IgqError, SearchSpaceError) as error:
        Console(stderr=True).print(f"[bold red]igq:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except BaseException:  # a signal may make whatever it interrupts fail in a way of its own
        if not stopping.asked:
            raise
        sys.stdout.flush()
        stopping.end()  # leaving Python in its own way takes seconds more


@app.command(epilog="Example: `igq spaces`")
def spaces() -> None:
    """List the bundled search spaces."""
    from pipeline.reports.spaces import spaces_table

    console.print(spaces_table([load(name) for name in names()]))
    console.print("Next: igq search SPACE --images DIR, or the path of a YAML file of your own.")


app.command(epilog="Example: `igq models`, or `igq models 'swin*'`")(models)


@app.command(
    epilog="Example: `igq search vit_tiny_w4a4 --images imagenet/val --weights vit_tiny.safetensors"
    " --workers 2`"
)
def search(
    space: Annotated[str, typer.Argument(help="A bundled space (igq spaces), or a YAML file.")],
    images: Annotated[
        str | None,
        typer.Option(help="Folder of class folders, `digits`, or NAME:ROOT of a timm dataset."),
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
    workers: Annotated[int, typer.Option(min=1, help="Trials that run at once.")] = 2,
    cluster: Annotated[
        str | None, typer.Option(help="Ray cluster to join. [default: start Ray here]")
    ] = None,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI. [default: sqlite in --out]")
    ] = None,
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
    # torch, Ray and MLflow take seconds to load: only commands that need them wait.
    from pipeline.cli.show import show
    from pipeline.cluster.ray import RayCluster
    from pipeline.commands.search import run as run_search
    from pipeline.reports.progress import TerminalDisplay
    from pipeline.tracking import sqlite_uri
    from pipeline.tracking.mlflow import MlflowTracker

    tracker = MlflowTracker(tracking or sqlite_uri(request.out))
    requests = request.over_seeds(seeds)
    again = [word for word in sys.argv[1:] if word != "--resume"]
    stopping.to_go_on = f"igq {shlex.join(again)} --resume"
    for one in requests:
        with TerminalDisplay(console) as display:
            result = run_search(one, RayCluster(cluster, workers), tracker, display)
        show(result, one.front, tracker.location, console)
    if seeds > 1:
        compare([one.out for one in requests], None)


@app.command(
    epilog="Example: `igq compare studies/vit_tiny_w4a4`, or over seeds: `igq compare"
    " studies/vit_tiny_w4a4/seed-* --plot seeds.png`"
)
def compare(
    studies: Annotated[list[Path], typer.Argument(help="Folders of studies that have ended.")],
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw the first table in.")] = None,
) -> None:
    """Compare what searches found with their rivals, and with each other, on unseen images.

    Studies that differ in their seed alone are one table, with intervals over seeds.
    """
    from pipeline.analysis.across_studies import compare_studies
    from pipeline.reports.tables import comparison_table

    tables = compare_studies(studies)
    for table in tables:
        console.print(comparison_table(table.rows, table.title, table.over, table.reference_top1))
    if plot is not None:
        from pipeline.reports.figures import draw_comparison

        console.print(f"Figure: {draw_comparison(plot, tables[0].rows, tables[0].over)}")


@app.command(
    epilog="Example: `igq report studies/vit_tiny_w4a4`, or side by side: `igq report"
    " studies/vit_tiny_w4a4/seed-* --out seeds.html`"
)
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
    from pipeline.commands.report import report as write

    console.print(f"Report: {write(studies, out, weights)}", soft_wrap=True)


app.command(
    epilog="Example: `igq export studies/vit_tiny_w4a4 --out artifacts/vit_tiny_w4a4`, or of a"
    " search with --front: `igq export studies/front --budget uniform:6 --out artifacts/six`"
)(export)
app.command(epilog="Example: `igq evaluate artifacts/vit_tiny_w4a4 --images imagenet/val`")(
    evaluate
)
app.command(
    epilog="Example: `igq apply artifacts/vit_tiny_w4a4/allocation.json --weights"
    " vit_tiny.safetensors --images imagenet/val --out artifacts/again`"
)(apply)
app.command(
    epilog="Example: `igq verify artifacts/vit_tiny_w4a4`, or `igq verify artifacts/vit_tiny_w4a4"
    " --evaluate imagenet/val`"
)(verify)
app.command(epilog="Example: `igq run artifacts/vit_tiny_w4a4 cat.jpg holiday/`")(run)
app.command(epilog="Example: `igq bench artifacts/vit_tiny_w4a4 --threads 1`")(bench)
app.command(epilog="Example: `igq package artifacts/vit_tiny_w4a4 --out models/vit_tiny_w4a4`")(
    package
)
app.command(
    epilog="Example: `igq profile deit_tiny_w4a4 --target server --out latency.json`, or a name of"
    " timm's: `igq profile deit_small_patch16_224 --target server`"
)(profile)
app.command(
    epilog="Example: `igq reproduce --images imagenet/val --calibration imagenet/train"
    " --weights-dir weights --bits 4 --seeds 5`"
)(reproduce)


app.command(epilog="Example: `igq cache`, or `igq cache clear --older 30`")(cache)
app.command(epilog="Example: `igq doctor`, or `igq doctor --cluster head:6379 --json`")(doctor)


@app.command(epilog="Example: `igq ui studies/vit_tiny_w4a4 --port 5000`")
def ui(
    study: Annotated[Path, typer.Argument(help="Folder of a study.")] = Path("studies/demo"),
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 5000,
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI. [default: where the study is tracked]")
    ] = None,
) -> None:
    """Open MLflow's pages on a study, and say where its own page is."""
    from pipeline.cli.pages import show_pages

    show_pages(study, host, port, tracking)
