"""Golden studies: a change of the code must leave recorded studies as they are.

`make_study.py` says what is recorded and how to record it again. Numbers are compared where the
processor and the libraries are those that they were recorded with: elsewhere a float may round
otherwise, and the pruner stop another trial. Definitions and names are compared everywhere.
"""

import gzip
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import pipeline
from pipeline.proposals.history import END, noted_of
from tests.golden.comparing import differences, listed
from tests.golden.conftest import Remade
from tests.golden.make_study import (
    JOURNAL,
    JSON_FILES,
    NAMES,
    STUDIES,
    cache_names,
    definition,
    evaluated,
    exported,
    machine,
    make,
    run_study,
    unpack,
    weights,
)

pytestmark = pytest.mark.xdist_group("golden")  # one process makes the studies again

FINAL_1 = STUDIES.parent / "final_1.json"
"""The final round of `groups` as it was written before it named its winner."""
MORE = 2
"""Trials that a resumed study gets in addition."""


def recorded(name: str, file: str) -> Any:
    return json.loads((STUDIES / name / file).read_text())


def recorded_journal(name: str) -> str:
    return gzip.decompress((STUDIES / name / f"{JOURNAL}.gz").read_bytes()).decode()


def assert_same(expected: Any, actual: Any) -> None:
    found = differences(expected, actual)
    assert not found, listed(found)


def told(journal: Path) -> dict[str, list[Any]]:
    """Return all that a journal tells of each study's trials, however it writes it."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return {
        study.study_name: [
            {
                "state": trial.state.name,
                "params": trial.params,
                "over": dict(trial.constraints),
                "reported": {str(step): kl for step, kl in trial.intermediate_values.items()},
                "noted": {k: v for k, v in noted_of(trial).items() if k not in ("node", END)},
            }
            for trial in storage.get_all_trials(study._study_id)
        ]
        for study in storage.get_all_studies()
    }


def trials_of(name: str, journal: Path) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=name, storage=storage).trials


@pytest.fixture
def same_machine(name: str) -> None:
    """Skip the test where numbers cannot be expected to be the recorded ones."""
    found = differences(recorded(name, "machine.json"), machine())
    if found:
        pytest.skip(f"numbers are not compared on another machine: {'; '.join(found)}")


@pytest.mark.slow
class TestMadeAgain:
    def test_its_definition_is_the_same(self, name: str, remade: Remade) -> None:
        assert_same(definition(STUDIES / name), definition(remade[name]))

    def test_its_cache_has_the_same_names(self, name: str, remade: Remade) -> None:
        names = (STUDIES / name / "cache_names.txt").read_text().split()
        assert cache_names(remade[name]) == names

    def test_it_has_the_same_files(self, name: str, remade: Remade) -> None:
        for file in JSON_FILES:
            assert (remade[name] / file).exists() == (STUDIES / name / file).exists(), file

    def test_its_result_says_the_same_things(self, name: str, remade: Remade) -> None:
        found = json.loads((remade[name] / "result.json").read_text())
        assert found.keys() == recorded(name, "result.json").keys() | {"seal"}
        assert found["best"].keys() == recorded(name, "result.json")["best"].keys()

    @pytest.mark.usefixtures("same_machine")
    def test_its_numbers_are_the_same(self, name: str, remade: Remade) -> None:
        made = remade[name]
        tables = [Path("cache") / path.name for path in (STUDIES / name / "cache").glob("*.json")]
        for file in (*map(Path, JSON_FILES[1:]), *tables):
            if (STUDIES / name / file).exists():
                expected = recorded(name, str(file))
                assert_same(
                    {file.name: expected}, {file.name: json.loads((made / file).read_text())}
                )

    @pytest.mark.usefixtures("same_machine")
    def test_its_trials_are_the_same(self, name: str, remade: Remade, tmp_path: Path) -> None:
        unpack(name, tmp_path / name)
        recorded_trials, found = (told(p / JOURNAL) for p in (tmp_path / name, remade[name]))
        assert_same(recorded_trials, found)


class TestOld:
    """A study of an older version of the code, in a copy."""

    @pytest.fixture
    def old(self, name: str, tmp_path: Path) -> Path:
        unpack(name, tmp_path / name)
        return tmp_path / name

    @pytest.mark.slow
    def test_it_goes_on_from_where_it_stopped(self, name: str, old: Path, tmp_path: Path) -> None:
        written, known = recorded_journal(name), trials_of(name, old / JOURNAL)
        names = (STUDIES / name / "cache_names.txt").read_text().split()

        run_study(name, old, resume=True, rivals=False, trials=len(known) + MORE)

        trials = trials_of(name, old / JOURNAL)
        assert (old / JOURNAL).read_text().startswith(written)
        assert len(trials) == len(known) + MORE
        assert trials[: len(known)] == known
        assert {"kls", "chunks", "shifts", "state"} <= noted_of(trials[-1]).keys()
        assert cache_names(old) == names
        assert definition(old) == definition(STUDIES / name)
        exported(old, tmp_path / "artifact")
        assert (tmp_path / "artifact" / "manifest.json").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["front", "groups"])
    @pytest.mark.usefixtures("same_machine")
    def test_it_is_exported_to_the_same_model(self, name: str, old: Path, tmp_path: Path) -> None:
        exported(old, tmp_path / "artifact")
        assert_same(recorded(name, "evaluated.json"), evaluated(tmp_path / "artifact"))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["groups"])
    def test_one_whose_final_round_names_no_winner_has_the_one_it_had(
        self, old: Path, tmp_path: Path
    ) -> None:
        """Rounds of before name the integer program's trial, which stood unless clearly beaten."""
        (old / "final.json").write_text(FINAL_1.read_text())
        assert pipeline.open(old, weights()).best.number == 2
        exported(old, tmp_path / "artifact")
        run_study("groups", old, resume=True, rivals=False)
        assert json.loads((old / "final.json").read_text()).keys() == {
            *("kls", "winner", "predicted", "seal")
        }

    @pytest.mark.parametrize("name", ["front"])
    def test_a_front_is_exported_within_a_budget(
        self, name: str, old: Path, tmp_path: Path
    ) -> None:
        exported(old, tmp_path / "least", "--budget", "uniform:2")
        manifest = json.loads((tmp_path / "least" / "manifest.json").read_text())
        assert manifest["notes"]["trial"] in [
            t["trial"] for t in recorded(name, "result.json")["front"]
        ]


class TestComparison:
    """The comparison itself finds a change."""

    @pytest.fixture
    def trials(self, tmp_path: Path) -> list[Any]:
        unpack("groups", tmp_path / "groups")
        return told(tmp_path / "groups" / JOURNAL)["groups"]

    def test_what_is_of_one_run_is_passed_over(self, trials: list[Any]) -> None:
        changed = deepcopy(trials)
        for trial in changed:
            trial["noted"]["seconds"] = 7.0
        assert changed != trials
        assert differences(trials, changed) == []

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [("kls", [0.0]), ("origin", "tpe"), ("state", "failed"), ("chunks", [1, 7])],
    )
    def test_a_changed_attribute_is_found(
        self, trials: list[Any], attribute: str, value: object
    ) -> None:
        changed = deepcopy(trials)
        changed[-1]["noted"][attribute] = value
        assert differences(trials, changed)

    def test_a_changed_parameter_is_found(self, trials: list[Any]) -> None:
        changed = deepcopy(trials)
        name = next(iter(changed[0]["params"]))
        changed[0]["params"][name] += 1
        (found,) = differences(trials, changed)
        assert f"params/{name}" in found

    def test_a_lost_trial_is_found(self, trials: list[Any]) -> None:
        assert differences(trials, trials[:-1])

    @pytest.mark.parametrize(
        ("expected", "actual", "same"),
        [
            (0.5, 0.5 * (1 + 1e-4), True),
            (0.5, 0.5 * (1 + 1e-2), False),
            (1, 1.0, False),
            (1, True, False),
            (0.0, None, False),
            ({"a": 1}, {"a": 1, "b": 2}, False),
            ({"a": 1, "b": 2}, {"a": 1}, False),
            ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, False),
        ],
    )
    def test_only_rounding_is_the_same(self, expected: Any, actual: Any, same: bool) -> None:
        assert (differences(expected, actual) == []) is same


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_study_is_not_overwritten(name: str) -> None:
    with pytest.raises(FileExistsError, match="must not exist yet"):
        make(name)
