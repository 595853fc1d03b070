"""A tracker that may be away for a while, or for good: the search goes on without it."""

import time
from collections.abc import Callable

from pipeline.errors import TrackingError
from pipeline.study.trials import Trial
from pipeline.tracking.base import Files, Metrics, StudyRun, Tables, Tags, Tracker

PAUSE, LONGEST = 5.0, 60.0
"""Seconds until a tracker is tried again, doubled each time, and the most of them (our choice)."""


class PatientTracker:
    """Passes everything on; what cannot be kept is kept later, at best by `igq sync`.

    `start` alone raises errors: a search does not begin with a tracker that is not there.

    >>> from pipeline.tracking import InMemoryTracker
    >>> PatientTracker(InMemoryTracker(), print, "studies/demo").location
    'memory'
    """

    def __init__(self, inner: Tracker, warn: Callable[[str], None], study: str) -> None:
        self._inner, self._warn, self._folder = inner, warn, study
        self._study: StudyRun | None = None
        self._trials: dict[int, Trial] = {}
        self._away, self._again, self._pause = False, 0.0, PAUSE

    def start(self, study: StudyRun) -> None:
        self._inner.start(study)
        self._study, self._trials, self._away = study, {}, False

    def record(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        if self._away:
            if time.monotonic() >= self._again:
                self._reopen()
            return
        try:
            self._inner.record(trial)
        except TrackingError as error:
            self._lose(error)

    def finish(self, metrics: Metrics, tags: Tags, tables: Tables, files: Files) -> None:
        def close() -> None:
            self._inner.finish(metrics, tags, tables, files)

        self._close(close)

    def interrupt(self) -> None:
        if self._away:
            self._say_rest()
            return
        try:
            self._inner.interrupt()
        except TrackingError:
            self._say_rest()

    @property
    def location(self) -> str:
        return self._inner.location

    def _lose(self, error: TrackingError) -> None:
        self._warn(f"{error} The search goes on; trials are written when it answers again.")
        self._away, self._pause = True, PAUSE
        self._again = time.monotonic() + PAUSE

    def _reopen(self) -> bool:
        """Start again and write every trial that is not there; return whether that went well."""
        assert self._study is not None, "`start` comes first"
        for last in (False, True):  # the first attempt may raise what went wrong before
            try:
                self._inner.start(self._study)
                for number in sorted(self._trials):
                    self._inner.record(self._trials[number])
                self._away = False
                return True
            except TrackingError:
                if last:
                    self._pause = min(2 * self._pause, LONGEST)
                    self._again = time.monotonic() + self._pause
        return False

    def _close(self, close: Callable[[], None]) -> None:
        """Close the study, after one more attempt to write all; or say how it is done later."""
        if not self._away:
            try:
                return close()
            except TrackingError:
                self._away = True
        try:
            if self._reopen():
                return close()
        except TrackingError:
            pass
        self._say_rest()

    def _say_rest(self) -> None:
        self._warn(
            f"the trials could not all be written to {self._inner.location}. The study is whole in "
            f"{self._folder}: `igq sync {self._folder}` writes the rest."
        )
