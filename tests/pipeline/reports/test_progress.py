"""The progress of a command, where people watch and where they do not."""

import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipeline.reports.progress import TerminalDisplay, progress_line
from pipeline.study.trials import Origin, Snapshot, State, Trial

Make = Callable[..., Trial]
BUDGET = 100


class TestProgressLine:
    def test_counts_trials_by_what_became_of_them(self, trial: Make) -> None:
        ended = (
            trial(0),
            trial(1),
            trial(2, state=State.PRUNED),
            trial(3, (), state=State.OVER_BUDGET),
        )
        line = progress_line(Snapshot(10, ended, 2, BUDGET))
        assert line.startswith("4/10 trials, 2 running, 2 complete, 1 pruned, 1 over budget")

    def test_has_the_best_kl_beside_the_baselines(self, trial: Make) -> None:
        ended = (
            trial(0, (0.5,), origin=Origin.UNIFORM),
            trial(1, (0.4,), origin=Origin.ILP),
            trial(2, (0.3,)),
        )
        line = progress_line(Snapshot(10, ended, 0, BUDGET))
        assert line.endswith("KL: best 0.3000 (uniform 0.5000, ilp 0.4000)")

    def test_has_no_kl_before_a_trial_completed(self, trial: Make) -> None:
        ended = (trial(0, (0.1,), state=State.PRUNED), trial(1, (0.1,), bops=BUDGET + 1))
        assert "KL" not in progress_line(Snapshot(10, ended, 0, BUDGET))


class TestTerminalDisplay:
    def test_where_nobody_watches_each_step_is_one_line(self) -> None:
        file = io.StringIO()
        with TerminalDisplay(Console(file=file)) as display:
            for name in ("reading images", "fitting"):
                advance = display.step(name)
                for done in range(11):
                    advance(done / 10)
        assert file.getvalue().splitlines() == ["reading images ...", "fitting ..."]

    def test_a_step_that_says_nothing_for_long_is_said_to_go_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.reports.progress.QUIET_SECONDS", 0.05)
        file = io.StringIO()
        with TerminalDisplay(Console(file=file)) as display:
            display.step("compiling")
            end = time.monotonic() + 10
            while file.getvalue().count("\n") < 3 and time.monotonic() < end:
                time.sleep(0.01)
        lines = file.getvalue().splitlines()
        assert lines[:3] == ["compiling ...", *["  compiling: 0 s so far"] * 2]

    def test_a_long_name_leaves_room_for_its_bar(self) -> None:
        name = "correcting the weights and " + "measuring how much each layer matters " * 2
        file = io.StringIO()
        with TerminalDisplay(Console(file=file, force_terminal=True, width=80)) as display:
            display.step(name)(0.5)
            display._live.refresh()
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "\n")
        assert f"{name} ...".split() == plain.partition("━")[0].split()[: len(name.split()) + 1]
        assert "correcting the weights and measuring how much each ... ━" in plain
        assert " 50% " in plain

    def test_a_long_name_is_one_line_where_there_are_no_bars(self) -> None:
        file = io.StringIO()
        with TerminalDisplay(Console(file=file, width=80)) as display:
            display.step("reading " * 30)
        assert file.getvalue().splitlines() == ["reading " * 30 + " ..."]

    def test_the_time_left_leaves_out_how_long_workers_took_to_start(
        self, trial: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace()
        monkeypatch.setattr("pipeline.reports.progress.time", clock)
        file = io.StringIO()
        display = TerminalDisplay(Console(file=file, width=200))
        ended = [trial(number) for number in range(3)]
        for seconds, count in ((100.0, 0), (130.0, 1), (140.0, 2), (150.0, 3)):
            clock.monotonic = lambda at=seconds: at
            display.trials(Snapshot(9, tuple(ended[:count]), 2, BUDGET))
        lines = [line.rpartition(", ")[2] for line in file.getvalue().splitlines()]
        assert lines == ["time left unknown"] * 2 + ["about 70 s left", "about 60 s left"]

    @pytest.mark.parametrize("error", [None, KeyboardInterrupt], ids=["at the end", "interrupted"])
    def test_a_terminal_gets_its_cursor_back(self, error: type[BaseException] | None) -> None:
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=100)
        with suppress(KeyboardInterrupt), TerminalDisplay(console) as display:
            display.step("reading images")(0.5)
            if error is not None:
                raise error
        hidden, shown = file.getvalue().rfind("\x1b[?25l"), file.getvalue().rfind("\x1b[?25h")
        assert -1 < hidden < shown
