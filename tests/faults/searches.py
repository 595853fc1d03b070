"""Searches as commands of their own, and the check of how they ended."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import search_spaces
from igq import Observation
from pipeline.commands.studies.driving import Driving
from pipeline.commands.studies.status import Status, status
from pipeline.errors import StudyError
from pipeline.evaluation.objective import Objective
from pipeline.preparation.prepare import prepare
from pipeline.preparation.study import Study
from pipeline.study.folder import Folder
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Engine, Request
from tests.clusters import igq
from tests.faults.outcomes import OUTCOMES, Outcome, Runs

TRIALS = 16
PATIENCE = float(os.environ.get("IGQ_PATIENCE", "240"))
"""Seconds for each step of a fault; loaded machines want more."""


@dataclass
class Search:
    """A search of the tiny space in a folder."""

    space: Path
    folder: Path
    process: "subprocess.Popen[str]"

    @property
    def status(self) -> Status | None:
        """The state of the search; None before there is one."""
        try:
            return status(self.folder)
        except StudyError:
            return None

    @property
    def ended(self) -> int:
        found = self.status
        return 0 if found is None else found.trials.ended

    def reaches(self, trials: int) -> None:
        """Wait until so many trials have ended."""
        self.waits(lambda: self.ended >= trials, f"{trials} trials")

    def waits(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"before {what}: {self.process.communicate()[0]}"
            assert time.monotonic() < end, f"no {what} in {PATIENCE} s: {self.status}"
            time.sleep(0.2)

    def ends(self, code: int = 0) -> str:
        """Wait for the end; return what was printed."""
        printed, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, printed
        return printed

    @property
    def driver(self) -> Driving:
        found = Driving.read(Folder(self.folder).driver)
        assert found is not None
        return found


BEGUN: list[Search] = []


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for something; fail when it is not so in time."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"not in {patience} s: {what}"
        time.sleep(0.2)


def begin(space: Path, folder: Path, *options: str, **environment: str) -> Search:
    """Start a search of sixteen trials."""
    few = ["--trials", str(TRIALS), "--no-rivals", "--engine", "eager", "--out", str(folder)]
    search = Search(space, folder, igq("search", str(space), *few, *options, **environment))
    BEGUN.append(search)
    return search


def end_all() -> None:
    """Kill the searches that a test that failed has left."""
    for search in BEGUN:
        if search.process.poll() is None:
            os.killpg(search.process.pid, signal.SIGKILL)
            search.process.wait()
    BEGUN.clear()


def check_sound(
    search: Search, fault: str, failed: int = 0, asked: int = TRIALS, store: Path | None = None
) -> None:
    """Check that a fault did no harm to a search that has ended, and note the outcome."""
    outcome = Outcome(
        fault=fault,
        asked=asked,
        failed=failed,
        trials=Study.open(search.folder).trials(),
        runs=Runs.of(store or search.folder / "mlflow.db"),
        best=best_again(search),
    )
    OUTCOMES.append(outcome)
    outcome.check()


def best_again(search: Search) -> tuple[float, float]:
    """Return the KL of the best as the result has it, and evaluated again."""
    best = json.loads(Folder(search.folder).result.read_text())["best"]
    space = search_spaces.load(search.space)
    request = Request(space, search.folder, trials=TRIALS, resume=True, engine=Engine.EAGER)
    study = Study.create(request, SilentDisplay())
    trial = next(one for one in study.trials() if one.number == best["trial"])
    task = prepare(study, SilentDisplay()).task
    seen = reduce(add, Objective(task).evaluate(trial.proposal.allocation), Observation())
    return best["search_kl"], seen.kl
