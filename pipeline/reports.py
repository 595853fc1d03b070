"""What a person sees of a study in the end: tables, the allocation as a picture, figures."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from igq import Layer, Score
from pipeline.study import Comparison, Origin, State, Trial, best

BLOCK = re.compile(r"(?:blocks\.)?(.*\d)\.(\D+\d*)")
"""A layer's name as its block (all up to the last index) and its place in it."""


def comparison_table(
    rows: Sequence[Comparison], images: int, reference_top1: float | None
) -> Table:
    """Best against the baselines on images that the search did not see."""
    table = Table(title=f"On {images} images that the search did not see", box=SIMPLE)
    table.add_column("allocation")
    for heading in ("trial", "BOPs", "KL", "less uniform's", "top-1", "kept", "searched KL"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            str(row.number),
            f"{row.bops:.3e} (+{row.overhead:.1%})",
            f"{row.kl:.4f} ± {row.kl_error:.4f}",
            f"{row.difference:+.4f} ± {row.difference_error:.4f}" if row.difference else "",
            "" if row.top1 is None else f"{row.top1:.2%}",
            f"{row.top1 / reference_top1:.3f}" if row.top1 is not None and reference_top1 else "",
            f"{row.search_kl:.4f}",
        )
    caption = "± one standard error over images; differences are paired by image"
    if reference_top1 is not None:
        caption += f"; full precision: top-1 {reference_top1:.2%}"
    table.caption = caption
    return table


def allocation_picture(layers: Sequence[Layer], allocation: Mapping[str, int]) -> Table:
    """The number of groups of each layer: a row for each block, a column for each place in it."""
    grid = _grid(layers, allocation)
    columns = list(dict.fromkeys(place for row in grid.values() for place in row))
    most = max(allocation.values())
    table = Table(title="Groups of each layer", padding=(0, 1))
    table.add_column("block", justify="right")
    for column in columns:
        table.add_column(column, justify="right")
    for block, row in grid.items():
        cells = (_cell(row[column], most) if column in row else Text("") for column in columns)
        table.add_row(block, *cells)
    return table


@runtime_checkable
class Cell(Protocol):
    """A share of top-1 kept, beside the authors'."""

    @property
    def label(self) -> str: ...
    @property
    def bits(self) -> int: ...
    @property
    def column(self) -> str: ...
    @property
    def kept(self) -> tuple[float, ...]: ...
    @property
    def mean(self) -> float: ...
    @property
    def spread(self) -> float | None: ...
    @property
    def published(self) -> float: ...
    @property
    def images(self) -> int: ...
    @property
    def full_precision(self) -> float: ...


def reproduction_table(cells: Sequence[Cell]) -> Table:
    """Shares of top-1 kept: mean and spread over calibration seeds, the authors' in brackets."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    table = Table(title="Top-1 kept of full precision's on the same images (the authors')")
    for heading in ("model", "bits", "images", "full precision", *columns):
        table.add_column(heading)
    rows: dict[tuple[str, int], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.label, cell.bits), {})[cell.column] = cell
    for (label, bits), row in rows.items():
        first = next(iter(row.values()))
        shares = [_share(row[column]) if column in row else "" for column in columns]
        table.add_row(
            label, f"W{bits}A{bits}", str(first.images), f"{first.full_precision:.2%}", *shares
        )
    if cells:
        table.caption = f"± standard deviation over {len(cells[0].kept)} calibration seeds"
    return table


def _share(cell: Cell) -> str:
    spread = "" if cell.spread is None else f" ± {cell.spread:.3f}"
    return f"{cell.mean:.3f}{spread} ({cell.published:.3f})"


@runtime_checkable
class Measured(Protocol):
    """What an exported model reaches on images."""

    @property
    def score(self) -> Score: ...
    @property
    def images(self) -> int: ...
    @property
    def reference_top1(self) -> float | None: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...


def evaluation_lines(measured: Measured) -> list[str]:
    """What an exported model reaches, and what was measured when it was searched."""
    score, top1 = measured.score, measured.reference_top1
    reached = [f"{measured.images} images"]
    if score.top1 is not None:
        kept = f" ({score.top1 / top1:.3f} of full precision's {top1:.2%})" if top1 else ""
        reached.append(f"top-1 {score.top1:.2%}{kept}")
    if score.kl is not None:
        reached.append(f"KL {score.kl:.4f}")
    if len(reached) == 1:
        reached.append("nothing to measure: give --weights for KL, or images in class folders")
    lines = [", ".join(reached)]
    noted = measured.notes.get("result")
    if noted:
        row, on = noted["comparisons"][0], noted["validation"]
        known = "" if row["top1"] is None else f"top-1 {row['top1']:.2%}, "
        lines.append(
            f"noted at the end of its search, on {on['images']} images of {on['source']}: "
            f"{known}KL {row['kl']:.4f}"
        )
    return lines


def _grid(layers: Sequence[Layer], allocation: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Block -> place in the block -> number of groups."""
    grid: dict[str, dict[str, int]] = {}
    for layer in layers:
        if layer.name in allocation:
            match = BLOCK.fullmatch(layer.name)
            block, place = match.groups() if match else ("", layer.name)
            grid.setdefault(block, {})[place] = allocation[layer.name]
    return grid


def _cell(groups: int, most: int) -> Text:
    eighths = max(1, round(8 * groups / most))
    return Text(f"{groups:3d} {'▁▂▃▄▅▆▇█'[eighths - 1]}")


def write_figures(
    folder: Path,
    trials: Sequence[Trial],
    budget: int,
    layers: Sequence[Layer],
    allocation: Mapping[str, int],
) -> list[Path]:
    """Draw the trials (KL against BOPs) and the allocation; gives the files written."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _draw_trials(folder / "trials.png", trials, budget),
        _draw_allocation(folder / "allocation.png", layers, allocation),
    ]


def _draw_trials(path: Path, trials: Sequence[Trial], budget: int) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for origin in Origin:
        mine = [t for t in trials if t.proposal.origin is origin and t.state is State.COMPLETE]
        axes.scatter(*_places(mine), label=origin.value)
    stopped = [t for t in trials if t.state is State.PRUNED]
    axes.scatter(*_places(stopped), marker="x", color="lightgrey", label="pruned (KL so far)")
    axes.axvline(budget, color="black", linestyle=":", label="budget")
    found = best(trials, budget)
    if found is not None and found.kl is not None:
        axes.annotate("best", (found.proposal.bops, found.kl))
    axes.set(xlabel="bit operations of one image", ylabel="KL on search images, nats")
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


def _places(trials: Sequence[Trial]) -> tuple[list[int], list[float]]:
    return [t.proposal.bops for t in trials], [t.kl or 0.0 for t in trials]


def _draw_allocation(path: Path, layers: Sequence[Layer], allocation: Mapping[str, int]) -> Path:
    from matplotlib.figure import Figure

    grid = _grid(layers, allocation)
    places = list(dict.fromkeys(place for row in grid.values() for place in row))
    values = [[row.get(place, 0) for place in places] for row in grid.values()]
    figure = Figure(figsize=(6, 1 + 0.4 * len(grid)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(places)), places)
    axes.set_yticks(range(len(grid)), [f"block {block}" for block in grid])
    for y, row in enumerate(values):
        for x, groups in enumerate(row):
            ink = "white" if 2 * groups < max(allocation.values()) else "black"
            axes.text(x, y, str(groups), ha="center", va="center", color=ink)
    figure.colorbar(image, label="groups")
    figure.savefig(path, dpi=120)
    return path
