"""The commands about MLflow: `igq ui` opens its pages, `igq sync` brings them up to a study."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import console
from pipeline.errors import TrackingError


def sync(
    study: Annotated[Path, typer.Argument(help="Folder of a study.")],
    tracking: Annotated[
        str | None, typer.Option(help="MLflow URI. [default: where the study is tracked]")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The same weights, where the file was moved.")
    ] = None,
) -> None:
    """Write to MLflow what it lacks of a study, as after a server was away."""
    from pipeline.commands.studies.sync import sync as write

    done = write(study, tracking, weights)
    rest = "and the result" if done.finished else "of a search that has not come to its end"
    console.print(f"{done.trials} trials {rest}: {done.location}", soft_wrap=True)


def show_pages(study: Path, host: str, port: int, tracking: str | None) -> None:
    """Serve the store of a study, name its pages, and open them where there is a display."""
    from pipeline.study.seals import read_definition
    from pipeline.tracking.server import serve
    from pipeline.tracking.uris import tracked_at

    definition = read_definition(study)
    uri = tracking or tracked_at(study)
    if uri.startswith("http"):
        console.print(f"The trials are on a server that runs already: {uri}", soft_wrap=True)
        return
    base = f"http://{host}:{port}"
    own = _say_pages(uri, str(definition.get("key", "")), base)
    console.print(f"MLflow at {base} (Ctrl-C ends it)")
    sys.exit(serve(uri, host, port, lambda: _open(own)))


def _say_pages(uri: str, key: str, base: str) -> str:
    """Print the addresses of a study's page and of its trials; return the first."""
    from pipeline.tracking.server import pages
    from pipeline.tracking.store import bring_view, find_study

    if not uri.startswith("sqlite"):
        return base
    if not Path(uri.partition("///")[2]).exists():
        raise TrackingError(
            f"`tracking` must be a store that exists, but {uri} does not; give the one that the "
            "search wrote to."
        )
    found = find_study(uri, key)
    if found is None:
        console.print("This store does not have the study; it is shown all the same.")
        return base
    bring_view(uri, *found)
    own, trials, plots = pages(base, *found)
    plainly = {"soft_wrap": True, "highlight": False, "markup": False}
    console.print(f"The study: {own}", **plainly)  # type: ignore[arg-type]
    console.print(f"Its trials by KL: {trials}", **plainly)  # type: ignore[arg-type]
    console.print(f"Plots of them: {plots}", **plainly)  # type: ignore[arg-type]
    return own


def _open(address: str) -> None:
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
