"""What a person sees while a command works: bars in a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.study import Origin, State, Trial, best, best_of

BASELINES = (Origin.UNIFORM, Origin.ILP, Origin.FISHER, Origin.RANDOM)
"""What the best is shown beside."""
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
        self._before: int | None = None
        self._since: tuple[float, int] | None = None

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
        if self._before is None:
            self._before = ended
            self._progress.reset(
                self._task, description="trials", total=snapshot.wanted, visible=True
            )
        elif self._since is None and ended > self._before:  # until here workers started as well
            self._since = time.monotonic(), ended
        self._progress.update(self._task, completed=ended)
        if self.console.is_terminal:
            self._live.update(Group(self._progress, Text(f"  {progress_line(snapshot)}")))
        else:
            self._say(f"{progress_line(snapshot)}, {self._time_left(snapshot)}")

    def _time_left(self, snapshot: Snapshot) -> str:
        ended = len(snapshot.ended)
        if self._since is None or ended == self._since[1]:
            return "time left unknown"
        each = (time.monotonic() - self._since[0]) / (ended - self._since[1])
        return f"about {each * (snapshot.wanted - ended):.0f} s left"

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
    known = ((o, best_of(snapshot.ended, o, snapshot.budget)) for o in BASELINES)
    beside = ", ".join(f"{origin} {trial.kl:.4f}" for origin, trial in known if trial is not None)
    return f"{line} | KL: best {found.kl:.4f}" + (f" ({beside})" if beside else "")
