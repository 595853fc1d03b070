"""The progress of a command: bars in a terminal or notebook, lines now and then elsewhere."""

import threading
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from igq.progress import Progress
from pipeline.study.best import best, best_of
from pipeline.study.trials import Origin, Snapshot, State

BASELINES = (Origin.UNIFORM, Origin.ILP, Origin.FISHER, Origin.RANDOM)
"""The baselines that the best is shown beside."""
BESIDE_A_BAR = 54
"""Letters of a step's name beside its bar, which has 80 columns with the time left."""
QUIET_SECONDS = 5.0
"""The seconds between two lines where there are no bars."""


class TerminalDisplay:
    """Shows the progress of one command: bars in a terminal or notebook, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = console.is_terminal or console.is_jupyter
        self._progress = Bars(
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
        self._name, self._begun = "", 0.0
        self._unsaid = ""
        self._ended = threading.Event()

    def __enter__(self) -> "TerminalDisplay":
        if self._bars:
            self._live.start()
        else:
            threading.Thread(target=self._keep_saying, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._bars:
            self._live.update(Text(""))
            self._live.stop()

    def step(self, name: str) -> Progress:
        """Announce a step; the function returned takes the share of it that is done."""
        short = name if len(name) <= BESIDE_A_BAR else f"{name[: BESIDE_A_BAR - 4]} ..."
        self._progress.reset(self._task, description=short, total=1.0, visible=True)
        if not self._bars or short != name:
            self.console.print(f"{name} ...", soft_wrap=True, highlight=False, markup=False)
            self._printed = time.monotonic()
        begun = time.monotonic()
        self._name, self._begun, self._unsaid = name, begun, ""

        def advance(share: float) -> None:
            self._progress.update(self._task, completed=share)
            self._say(f"  {name}: {share:.0%}{_left(time.monotonic() - begun, share)}")

        return advance

    def trials(self, snapshot: Snapshot) -> None:
        """Show the progress of the search."""
        ended, self._name = len(snapshot.ended), "trials"
        if self._before is None:
            self._begun = time.monotonic()
            self._before = ended
            self._progress.reset(
                self._task, description="trials", total=snapshot.wanted, visible=True
            )
        elif self._since is None and ended > self._before:  # until here workers started as well
            self._since = time.monotonic(), ended
        self._progress.update(self._task, completed=ended)
        if self._bars:
            self._live.update(Group(self._progress, Text(f"  {progress_line(snapshot)}")))
        else:
            self._say(f"{progress_line(snapshot)}, {self._time_left(snapshot)}")

    def say(self, text: str) -> None:
        """Tell a fact about what the user brought."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Tell what likely is a mistake, in red where there are colours."""
        self.console.print(f"WARNING: {text}", style="bold red", soft_wrap=True, markup=False)

    def _time_left(self, snapshot: Snapshot) -> str:
        ended = len(snapshot.ended)
        if self._since is None or ended == self._since[1]:
            return "time left unknown"
        each = (time.monotonic() - self._since[0]) / (ended - self._since[1])
        return f"about {each * (snapshot.wanted - ended):.0f} s left"

    def _keep_saying(self) -> None:
        """Say that a step goes on where it says nothing of its own for long."""
        while not self._ended.wait(QUIET_SECONDS / 5):
            now = time.monotonic()
            if self._name and now - self._printed >= QUIET_SECONDS:
                self._say(self._unsaid or f"  {self._name}: {now - self._begun:.0f} s so far")

    def _say(self, line: str) -> None:
        """Print a line, or keep it until the last one is old enough."""
        now, self._unsaid = time.monotonic(), line
        if not self._bars and now - self._printed >= QUIET_SECONDS:
            self._printed, self._unsaid = now, ""
            self.console.print(line, soft_wrap=True)


def _left(seconds: float, share: float) -> str:
    """Say how long a step takes on, after `seconds` for a share of it."""
    return f", about {seconds * (1 / share - 1):.0f} s left" if 0 < share < 1 else ""


def progress_line(snapshot: Snapshot) -> str:
    """Return trials by state, and the best KL beside the baselines'."""
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
