"""The journal: what counts only with a trial's end is written with it, and is read once."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from pipeline.proposals.history import END
from pipeline.proposals.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def study_in(path: Path) -> tuple[optuna.Study, JournalStorage]:
    storage = JournalStorage(Journal(path))
    study = optuna.create_study(study_name="study", storage=storage, load_if_exists=True)
    return study, storage


def from_disk(path: Path) -> list[FrozenTrial]:
    """Return the trials as another process reads them."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="study", storage=storage).trials


def test_reports_reach_the_disk_with_the_end_of_their_trial(path: Path) -> None:
    study, storage = study_in(path)
    trial = study.ask({"fc1": optuna.distributions.IntDistribution(0, 3)})
    (one,) = study.trials
    for chunk in range(4):
        storage.set_trial_intermediate_value(one._trial_id, chunk, 1.5)
    storage.set_trial_user_attr(one._trial_id, END, {"kls": [1.5]})
    assert study.trials[0].intermediate_values == dict.fromkeys(range(4), 1.5)
    (before,) = from_disk(path)
    assert (before.state, before.intermediate_values) == (TrialState.RUNNING, {})
    assert before.params == trial.params

    study.tell(trial, 1.5)
    assert from_disk(path) == study.trials
    assert from_disk(path)[0].user_attrs[END] == {"kls": [1.5]}


def test_what_it_appended_it_does_not_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = study_in(path)
    study.tell(study.ask(), 1.0)
    again, _ = study_in(path)
    assert again.trials == study.trials

    def read_again(*arguments: object) -> None:
        raise AssertionError("read the file again")

    monkeypatch.setattr(JournalFileBackend, "read_logs", read_again)
    again.tell(again.ask(), 2.0)
    assert [trial.value for trial in again.trials] == [1.0, 2.0]


def test_studies_of_one_journal_number_their_trials_alike(path: Path) -> None:
    first, storage = study_in(path)
    second = optuna.create_study(study_name="rival", storage=JournalStorage(Journal(path)))
    for turn in range(3):
        one, other = first.ask(), second.ask()
        identity = first.trials[turn]._trial_id
        storage.set_trial_intermediate_value(identity, 0, float(turn))
        second.tell(other, 10.0 + turn)
        first.tell(one, float(turn))
    assert [trial.value for trial in from_disk(path)] == [0.0, 1.0, 2.0]
    assert from_disk(path) == first.trials
    rival = optuna.load_study(
        study_name="rival", storage=JournalStorage(JournalFileBackend(str(path)))
    )
    assert [trial.value for trial in rival.trials] == [10.0, 11.0, 12.0]
    assert rival.trials == second.trials
