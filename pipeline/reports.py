"""What a person reads of a study in the end: tables, and the allocation as a picture."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Protocol, runtime_checkable

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from igq import Layer, Score
from igq.layers import block_and_place
from igq.settings import Choice, Setting
from igq.size import megabytes
from pipeline.comparison import Comparison
from pipeline.intervals import Interval
from pipeline.study import Trial, knee
from search_spaces import SearchSpace


def spaces_table(spaces: Sequence[SearchSpace]) -> Table:
    """Search spaces, one in a row."""
    table = Table()
    for heading in ("space", "model", "W", "A", "groups", "budget", "trials"):
        table.add_column(heading)
    for space in spaces:
        table.add_row(
            space.name,
            space.model.name,
            _numbers(space.weight_bits),
            _numbers(space.activation_bits),
            _numbers(space.num_groups),
            f"{space.budget}, {space.max_size}" if space.max_size else str(space.budget),
            str(space.trials),
        )
    return table


def _numbers(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else " ".join(map(str, value))


def comparison_table(
    rows: Sequence[Comparison], title: str, over: str, reference_top1: float | None = None
) -> Table:
    """Best beside its rivals; intervals are over what `over` names, images or seeds."""
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("allocation", no_wrap=True)
    price = "BOPs" if all(row.size is None for row in rows) else "BOPs, size"
    headings = (price, "passes", "search KL", "KL", "best less this", "the best is")
    for heading in (*headings, "top-1", "kept", "points more"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        kept = row.top1 is not None and reference_top1
        table.add_row(
            row.name,
            f"{row.bops:.3e}{_size_or_overhead(row)}",
            f"{row.forwards:,.0f}",
            f"{row.search_kl:.4f}",
            _with_reach(row.kl),
            "" if row.difference is None else _with_reach(row.difference, "+"),
            verdict(row),
            "" if row.top1 is None else f"{row.top1.mean:.2%}",
            f"{row.top1.mean / reference_top1:.3f}" if kept and row.top1 and reference_top1 else "",
            "" if row.top1_difference is None else _points(row.top1_difference),
        )
    caption = (
        f"± half a 95 % interval over {over}, differences paired; passes: image-forward-passes to "
        "find it; points more: the best's top-1 less this one's"
    )
    if reference_top1 is not None:
        caption += f"; full precision: top-1 {reference_top1:.2%}"
    table.caption = caption
    return table


def _size_or_overhead(row: Comparison) -> str:
    """The size where it is known: there bits are searched, and BOPs are more than overhead."""
    return f" (+{row.overhead:.1%})" if row.size is None else f", {megabytes(row.size)}"


def verdict(row: Comparison) -> str:
    """What the interval of the KLs' difference allows to say of the best against this one."""
    if row.difference is None:
        return ""
    if row.difference.holds_zero:
        return "no different"
    return "better" if row.difference.mean < 0 else "worse"


def _with_reach(known: Interval, sign: str = "") -> str:
    reach = known.high - known.mean
    return f"{known.mean:{sign}.4f}" + (f" ± {reach:.4f}" if isfinite(reach) else "")


def _points(known: Interval) -> str:
    reach = 100 * (known.high - known.mean)
    return f"{100 * known.mean:+.2f}" + (f" ± {reach:.2f}" if isfinite(reach) else "")


def front_lines(points: Sequence[Trial]) -> list[str]:
    """The front in words: what a budget buys, and where more of it begins to buy less."""
    bend = knee(points)
    lines = ["KL on search images for BOPs:"]
    for trial in points:
        mark = "  <- knee: more BOPs buy less from here on" if trial is bend else ""
        size = "" if trial.proposal.size is None else f"{megabytes(trial.proposal.size)}, "
        lines.append(
            f"  {trial.proposal.bops:.4e}  {trial.kl:.4f}  {size}trial {trial.number}, "
            f"{trial.proposal.origin.value}{mark}"
        )
    if bend is not None:
        lines.append(f"The knee: igq export STUDY --budget bops:{bend.proposal.bops} --out FOLDER")
    return lines


def allocation_picture(layers: Sequence[Layer], allocation: Mapping[str, Choice]) -> Table:
    """The number of groups of each layer: a row for each block, a column for each place in it."""
    grid = block_grid(layers, allocation)
    columns = list(dict.fromkeys(place for row in grid.values() for place in row))
    most = max(map(weight_of, allocation.values()))
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


def block_grid(
    layers: Sequence[Layer], allocation: Mapping[str, Choice]
) -> dict[str, dict[str, Choice]]:
    """Block -> place in the block -> number of groups."""
    grid: dict[str, dict[str, Choice]] = {}
    for layer in layers:
        if layer.name in allocation:
            block, place = block_and_place(layer.name)
            grid.setdefault(block.removeprefix("blocks."), {})[place] = allocation[layer.name]
    return grid


def weight_of(choice: Choice) -> int:
    """How much a choice spends, for a picture: its groups, or where it has bits their sum."""
    if isinstance(choice, Setting):
        return (choice.weight_bits or 0) + (choice.activation_bits or 0)
    return choice


def _cell(choice: Choice, most: int) -> Text:
    eighths = max(1, round(8 * weight_of(choice) / most))
    return Text(f"{choice!s:>3} {'▁▂▃▄▅▆▇█'[eighths - 1]}")
