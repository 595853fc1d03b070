"""The state of a search, told from its folder alone: nothing is opened that its driver has open."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.commands.studies.driving import Driving
from pipeline.errors import StudyError
from pipeline.proposals import Overview, overview
from pipeline.study.folder import Folder
from pipeline.study.seals import check_companions, read_definition, read_sealed

LATELY = 50
"""Trials that the rate is taken of (our choice)."""


@dataclass(frozen=True)
class Status:
    """How far a search is.

    >>> status("studies/demo").phase
    'finished'
    """

    folder: Path
    phase: str
    """`preparing`, `searching`, `concluding`, `finished`, or `stopped`: its driver is gone."""
    wanted: int | None
    """The trials that were asked for, where it is known."""
    trials: Overview
    driver: Driving | None
    rate: float | None
    """Trials a minute, of late."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all trials have ended, at this rate."""
        if not self.rate or self.wanted is None or self.phase != "searching":
            return None
        return 60 * max(0, self.wanted - self.trials.ended) / self.rate

    def json(self) -> dict[str, Any]:
        """Return the state as plain data."""
        trials, driver = self.trials, self.driver
        return {
            "folder": str(self.folder),
            "phase": self.phase,
            "asked": self.wanted,
            "ended": trials.ended,
            "running": trials.running if self.phase == "searching" else 0,
            "states": {state.value: n for state, n in (trials.states or {}).items()},
            "best": None if trials.best is None else {"trial": trials.best, "kl": trials.best_kl},
            "nodes": dict(trials.nodes or {}),
            "trials_per_minute": self.rate,
            "seconds_left": self.seconds_left,
            "driver": None
            if driver is None
            else {"host": driver.host, "pid": driver.pid, "alive": driver.alive},
        }

    @property
    def lines(self) -> list[str]:
        """The state in words."""
        return [
            line for line in (self._progress(), self._best(), self._speed(), self._who()) if line
        ]

    def _progress(self) -> str:
        trials = self.trials
        of = "" if self.wanted is None else f" of {self.wanted}"
        states = (trials.states or {}).items()
        counts = [f"{number} {state.value.replace('_', ' ')}" for state, number in states]
        if trials.running:
            counts.append(f"{trials.running} {'cut off' if self.phase == 'stopped' else 'running'}")
        line = f"{self.folder}: {self.phase}, {trials.ended}{of} trials"
        return f"{line} ({', '.join(counts)})" if counts else line

    def _best(self) -> str:
        best = self.trials.best
        return "" if best is None else f"Best so far: trial {best}, KL {self.trials.best_kl:.4f}"

    def _speed(self) -> str:
        if self.rate is None:
            return ""
        left = self.seconds_left
        line = f"{self.rate:.3g} trials a minute"
        nodes = ", ".join(f"{name} ({n})" for name, n in (self.trials.nodes or {}).items())
        line += "" if left is None else f", about {left:.0f} s left"
        return f"{line}; on {nodes}" if nodes else line

    def _who(self) -> str:
        driver = self.driver
        if driver is None:
            return ""
        state = {True: "alive", False: "gone", None: "on another machine, not looked at"}
        line = f"Driver: process {driver.pid} on {driver.host}, {state[driver.alive]}"
        return f"{line}. To go on: --resume" if self.phase == "stopped" else line


def status(study: str | Path) -> Status:
    """Read how far the search in a folder is.

    Raises:
        StudyError: there is no study, or it is damaged.

    >>> status("studies/demo").trials.ended
    4
    """
    folder = Folder(Path(study))
    try:
        name = read_definition(folder.path)["space"]["name"]
    except (KeyError, TypeError) as error:
        raise StudyError(f"{folder.study} must define a study, but: {error!r}") from error
    found, driver = overview(folder.journal, name), Driving.read(folder.driver)
    _check_end(folder, writing=driver is not None and driver.alive is not False)
    wanted = None if driver is None else driver.trials
    phase = _phase(folder, found, driver)
    return Status(folder.path, phase, wanted, found, driver, _rate(found, driver))


def _check_end(folder: Folder, writing: bool) -> None:
    """Refuse the files of a study's end unless they are whole and were written together.

    While a driver may be `writing` them, some may be missing, or of an earlier end.

    Raises:
        StudyError: one is missing, damaged, or of another end.
    """
    for path in (folder.final, folder.result):
        if path.exists():
            read_sealed(path)
    if folder.validation.exists() or (folder.result.exists() and not writing):
        content = read_sealed(folder.validation)
        if "files" in content and not writing:  # not in studies of before
            check_companions(folder.validation, content["files"])


def _phase(folder: Folder, found: Overview, driver: Driving | None) -> str:
    began = 0.0 if driver is None else driver.since
    if folder.result.exists() and folder.result.stat().st_mtime >= began:
        return "finished"
    if driver is not None and driver.alive is False:
        return "stopped"
    if driver is not None and found.ended >= driver.trials:
        return "concluding"
    return "searching" if found.ended or found.running else "preparing"


def _rate(found: Overview, driver: Driving | None) -> float | None:
    """Return the trials a minute of this driver's last ones; None of fewer than two."""
    began = 0.0 if driver is None else driver.since
    times = [moment for moment in found.times if moment >= began][-LATELY:]
    if len(times) < 2:
        return None
    until = min(time.time(), times[-1] + 60) if driver and driver.alive else times[-1]
    return 60 * (len(times) - 1) / max(until - times[0], 1e-3)
