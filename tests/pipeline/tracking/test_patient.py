"""A search goes on without its tracker; what was missed is written when it is back."""

from collections.abc import Callable

import pytest

from pipeline.errors import TrackingError
from pipeline.study.trials import Trial
from pipeline.tracking import InMemoryTracker, StudyRun
from pipeline.tracking import patient as module
from pipeline.tracking.patient import PatientTracker

STUDY = StudyRun("study", "key", {}, 0)


class Outage(InMemoryTracker):
    """A tracker that can be away."""

    away = False

    def start(self, study: StudyRun) -> None:
        self._reach()
        super().start(study)

    def record(self, trial: Trial) -> None:
        self._reach()
        super().record(trial)

    def finish(self, *results: object, **named: object) -> None:
        self._reach()
        super().finish(*results, **named)  # type: ignore[arg-type]

    def interrupt(self) -> None:
        self._reach()
        super().interrupt()

    def _reach(self) -> None:
        if self.away:
            raise TrackingError("no answer.")


@pytest.fixture
def outage() -> Outage:
    return Outage()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def patient(outage: Outage, said: list[str], monkeypatch: pytest.MonkeyPatch) -> PatientTracker:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    patient = PatientTracker(outage, said.append, "studies/one")
    patient.start(STUDY)
    return patient


def finish(tracker: PatientTracker) -> None:
    tracker.finish({"kl": 1.0}, {}, {}, [])


def test_a_search_does_not_begin_without_its_tracker(outage: Outage, said: list[str]) -> None:
    outage.away = True
    with pytest.raises(TrackingError):
        PatientTracker(outage, said.append, "studies/one").start(STUDY)


def test_trials_of_an_outage_are_written_when_it_is_over(
    patient: PatientTracker, outage: Outage, said: list[str], trial: Callable[..., Trial]
) -> None:
    patient.record(trial(0))
    outage.away = True
    patient.record(trial(1))
    patient.record(trial(2))
    assert sorted(outage.trials) == [0]
    outage.away = False
    patient.record(trial(3))
    assert sorted(outage.trials) == [0, 1, 2, 3]
    finish(patient)
    assert outage.status == "FINISHED"
    assert said == ["no answer. The search goes on; trials are written when it answers again."]


def test_a_tracker_that_is_back_at_the_end_has_all(
    patient: PatientTracker, outage: Outage, trial: Callable[..., Trial]
) -> None:
    outage.away = True
    patient.record(trial(0))
    outage.away = False
    finish(patient)
    assert (sorted(outage.trials), outage.status) == ([0], "FINISHED")


def test_a_tracker_that_never_comes_back_does_not_end_the_search(
    patient: PatientTracker, outage: Outage, said: list[str], trial: Callable[..., Trial]
) -> None:
    outage.away = True
    patient.record(trial(0))
    finish(patient)
    assert "`igq sync studies/one` writes the rest" in said[-1]


def test_an_outage_that_begins_with_the_end_is_noticed(
    patient: PatientTracker, outage: Outage, said: list[str]
) -> None:
    outage.away = True
    finish(patient)
    assert len(said) == 1


@pytest.mark.parametrize("noticed", [True, False])
def test_an_interrupted_search_ends_without_its_tracker(
    patient: PatientTracker,
    outage: Outage,
    said: list[str],
    trial: Callable[..., Trial],
    noticed: bool,
) -> None:
    outage.away = True
    if noticed:
        patient.record(trial(0))
    patient.interrupt()
    assert "igq sync" in said[-1]


def test_a_tracker_is_not_tried_at_every_trial(
    outage: Outage, said: list[str], trial: Callable[..., Trial]
) -> None:
    patient = PatientTracker(outage, said.append, "studies/one")
    patient.start(STUDY)
    outage.away = True
    patient.record(trial(0))
    outage.away = False
    patient.record(trial(1))
    assert not outage.trials, "five seconds have not passed"
