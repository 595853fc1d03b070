"""What a person sees of a study: live progress, tables, the allocation as a picture, figures."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from igq import Layer, Score
from pipeline.study import Comparison, Origin, State, Trial, best, best_of

BLOCK = re.compile(r"(?:blocks\.)?(.*\d)\.(\D+\d*)")
"""A layer's name as its block (all up to the last index) and its place in it."""
QUIET_SECONDS = 10.0
"""Where nobody watches a terminal, progress is a line at most this often."""


@runtime_checkable
class Snapshot(Protocol):
    """How far a search is."""

    @property
    def wanted(self) -> int: ...
    @property
    def ended(self) -> tuple[Trial, ...]: ...
    @property
    def running(self) -> int: ...
    @property
    def budget(self) -> int: ...


class Screen:
    """Live progress of one command, as bars in a terminal and as lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._live = Live(self._progress, console=console, refresh_per_second=4)
        self._task = self._progress.add_task("", visible=False)
        self._printed = 0.0
        self._started: float | None = None
        self._before = 0

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.update(Text(""))
            self._live.stop()

    def step(self, name: str) -> Callable[[float], None]:
        """Announce a step; the function it gives takes the share of it that is done."""
        self._progress.reset(self._task, description=name, total=1.0, visible=True)
        if not self.console.is_terminal:
            self.console.print(f"{name} ...")
            self._printed = time.monotonic()

        def advance(share: float) -> None:
            self._progress.update(self._task, completed=share)
            self._say(f"  {name}: {share:.0%}")

        return advance

    def trials(self, snapshot: Snapshot) -> None:
        """Show how far the search is."""
        ended = len(snapshot.ended)
        if self._started is None:
            self._started, self._before = time.monotonic(), ended
            self._progress.reset(
                self._task, description="trials", total=snapshot.wanted, visible=True
            )
        self._progress.update(self._task, completed=ended)
        if self.console.is_terminal:
            self._live.update(Group(self._progress, Text(f"  {progress_line(snapshot)}")))
        else:
            self._say(f"{progress_line(snapshot)}, {self._time_left(snapshot)}")

    def _time_left(self, snapshot: Snapshot) -> str:
        done = len(snapshot.ended) - self._before
        if not done or self._started is None:
            return "time left unknown"
        each = (time.monotonic() - self._started) / done
        return f"about {each * (snapshot.wanted - len(snapshot.ended)):.0f} s left"

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if not self.console.is_terminal and now - self._printed >= QUIET_SECONDS:
            self.console.print(line)
            self._printed = now


def progress_line(snapshot: Snapshot) -> str:
    """Trials by state, and the best KL beside the baselines'."""
    counts = {state: sum(t.state is state for t in snapshot.ended) for state in State}
    parts = [f"{len(snapshot.ended)}/{snapshot.wanted} trials, {snapshot.running} running"]
    parts += [f"{n} {state.value.replace('_', ' ')}" for state, n in counts.items() if n]
    line = ", ".join(parts)
    found = best(snapshot.ended, snapshot.budget)
    if found is None:
        return line
    known = ((o, best_of(snapshot.ended, o, snapshot.budget)) for o in list(Origin)[:3])
    beside = ", ".join(f"{origin} {trial.kl:.4f}" for origin, trial in known if trial is not None)
    return f"{line} | KL: best {found.kl:.4f}" + (f" ({beside})" if beside else "")


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
