"""The command `igq`: parse, call, print.

Exit codes: 0 where all went well; 1 where `igq doctor` finds something amiss, or for an error of
igq's own, which has a traceback; 2 for whatever the user can mend, with one message; 130 for an
interrupted search, which `--resume` goes on with; 143 for one that was told to end.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from igq.errors import IgqError
from pipeline.cli.artifacts import apply, bench, evaluate, export, package, run, verify
from pipeline.cli.inspect import doctor, models, status
from pipeline.cli.options import console, progress, remarks, write_plainly
from pipeline.cli.pages import sync
from pipeline.cli.profile import profile
from pipeline.cli.reproduce import reproduce
from pipeline.cli.signals import catching_signals, stopping
from pipeline.cli.studies import compare, report, search
from pipeline.threads import wait_patiently
from search_spaces import SearchSpaceError, load, names

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find how many instance-aware groups each layer of a quantized vision transformer gets.",
    epilog="Results go to stdout, progress to stderr. Exit codes: 0 done; 1 `igq doctor` found"
    " something, or an error of igq's own; 2 a mistake to mend; 130 interrupted; 143 terminated.",
)


def main() -> None:
    """Run the command line."""
    write_plainly()
    wait_patiently()
    try:
        with catching_signals(), remarks():
            app(sys.argv[1:] or ["--help"], standalone_mode=True)
    except (IgqError, SearchSpaceError) as error:
        progress.print(f"[bold red]igq:[/] {escape(str(error))}", soft_wrap=True)
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


app.command(
    epilog="Example: `igq search vit_tiny_w4a4 --images imagenet/val --weights vit_tiny.safetensors"
    " --workers 2`, or first with `--plan`"
)(search)
app.command(
    epilog="Example: `igq compare studies/vit_tiny_w4a4`, or over seeds: `igq compare"
    " studies/vit_tiny_w4a4/seed-* --plot seeds.png`"
)(compare)
app.command(
    epilog="Example: `igq report studies/vit_tiny_w4a4`, or side by side: `igq report"
    " studies/vit_tiny_w4a4/seed-* --out seeds.html`"
)(report)
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


app.command(epilog="Example: `igq sync studies/vit_tiny_w4a4 --tracking http://server:5000`")(sync)
app.command(epilog="Example: `igq status studies/vit_tiny_w4a4`")(status)
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
