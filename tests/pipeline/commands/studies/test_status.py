"""Status: a search seen from another terminal, by its folder alone."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.studies.driving import Driving
from pipeline.commands.studies.search import run
from pipeline.commands.studies.status import status
from pipeline.errors import StudyError
from pipeline.files import write_json
from pipeline.study.folder import Folder
from pipeline.study.progress import Display
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker
from tests.pipeline.commands.studies.test_search import Interrupted

pytestmark = pytest.mark.slow


@pytest.fixture
def stopped(make_request: Callable[..., Request], display: Display) -> Folder:
    """A search of twelve trials that was interrupted in its fifth."""
    request = make_request()
    with pytest.raises(KeyboardInterrupt):
        run(request, Interrupted(after=4), InMemoryTracker(), display)
    return Folder(request.out)


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def drive(folder: Folder, **changes: object) -> None:
    """Note another driver."""
    noted = json.loads(folder.driver.read_text())
    write_json(folder.driver, noted | changes)


def test_a_search_under_way(stopped: Folder) -> None:
    found = status(stopped.path)
    assert (found.phase, found.wanted, found.trials.ended, found.trials.running) == (
        "searching",
        12,
        4,
        1,
    )
    assert found.driver is not None
    assert (found.driver.pid, found.driver.host) == (os.getpid(), socket.gethostname())
    assert found.trials.nodes == {socket.gethostname(): 4}
    lines = "\n".join(found.lines)
    assert "searching, 4 of 12 trials (4 complete, 1 running)" in lines
    assert f"Driver: process {os.getpid()} on {socket.gethostname()}, alive" in lines


def test_rate_and_time_left_follow_from_the_last_trials(stopped: Folder) -> None:
    found = status(stopped.path)
    assert found.rate is not None
    assert found.seconds_left == pytest.approx(60 * 8 / found.rate)
    assert found.json()["seconds_left"] == found.seconds_left


def test_the_best_is_the_least_kl_so_far(stopped: Folder) -> None:
    from pipeline.preparation.study import Study

    found = status(stopped.path).trials
    kls = {trial.number: trial.kl for trial in Study.open(stopped.path).trials()}
    assert found.best_kl == pytest.approx(min(kl for kl in kls.values() if kl is not None))
    assert kls[found.best or 0] == pytest.approx(found.best_kl)


def test_a_driver_that_died_leaves_its_search_stopped(stopped: Folder) -> None:
    drive(stopped, pid=gone())
    found = status(stopped.path)
    assert found.phase == "stopped"
    assert found.seconds_left is None
    assert found.lines[-1].endswith("gone. To go on: --resume")
    assert "1 cut off" in found.lines[0]


def test_another_process_of_the_same_number_is_not_the_driver(stopped: Folder) -> None:
    drive(stopped, process="1")
    assert status(stopped.path).phase == "stopped"


def test_a_driver_elsewhere_is_not_looked_at(stopped: Folder) -> None:
    drive(stopped, host="elsewhere")
    found = status(stopped.path)
    assert found.driver is not None
    assert found.driver.alive is None
    assert "on another machine" in found.lines[-1]


def test_a_finished_search(make_request: Callable[..., Request], display: Display) -> None:
    request = make_request()
    run(request, Interrupted(after=100), InMemoryTracker(), display)
    found = status(request.out)
    assert (found.phase, found.trials.ended, found.trials.running) == ("finished", 12, 0)
    folder = Folder(request.out)
    drive(folder, pid=gone())
    for path in (folder.final, folder.validation, folder.result):
        kept = path.read_bytes()
        for damage in (cut, Path.unlink):
            damage(path)
            with pytest.raises(StudyError, match=path.name.replace(".", r"\.")):
                status(request.out)
            path.write_bytes(kept)
    assert status(request.out).phase == "finished"


def test_files_of_an_end_appear_one_after_the_other(
    make_request: Callable[..., Request], display: Display
) -> None:
    request = make_request()
    run(request, Interrupted(after=100), InMemoryTracker(), display)
    Folder(request.out).validation.unlink()
    assert status(request.out).phase == "finished"  # its driver, this process, may be writing it


def test_no_study_is_refused_and_a_damaged_note_too(stopped: Folder, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must hold study\.json"):
        status(tmp_path / "none")
    drive(stopped, nonsense=1)
    with pytest.raises(StudyError, match="must note the driver"):
        status(stopped.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 0},
        {"pid": -1},
        {"pid": 10**30},
        {"pid": "a"},
        {"pid": True},
        {"since": "y"},
        {"since": -1.0},
        {"trials": 0},
        {"trials": "z"},
        {"host": 3},
    ],
)
def test_a_note_of_a_driver_has_values_that_it_can_have(
    changes: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "driver.json"
    write_json(path, {**Driving.here(1).json(), **changes})
    ((name, value),) = changes.items()
    with pytest.raises(StudyError, match=f"its {name} is {value!r}"):
        Driving.read(path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"pid": 1e999}', "{"])
def test_a_note_of_a_driver_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "driver.json").write_text(text)
    with pytest.raises(StudyError, match=r"driver\.json"):
        Driving.read(tmp_path / "driver.json")


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "driver.json")
    with pytest.raises(StudyError, match="must be a file, but is none"):
        Driving.read(tmp_path / "driver.json")
    (tmp_path / "study.json").symlink_to("/dev/zero")
    with pytest.raises(StudyError, match="must be a file"):
        status(tmp_path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("0.", "1.", 1))


def wait_for_ever(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["journal.log", "journal.json"])
@pytest.mark.parametrize("damage", [cut, wait_for_ever, lambda path: path.write_text("")])
def test_a_journal_that_is_not_as_it_was_sealed_is_refused(
    name: str, damage: Callable[[Path], None], stopped: Folder
) -> None:
    damage(stopped.path / name)
    with pytest.raises(StudyError, match=name.replace(".", r"\.")):
        status(stopped.path)


def test_an_edited_trial_is_refused(stopped: Folder) -> None:
    edit(stopped.journal)
    with pytest.raises(StudyError, match=r"journal\.log must be as it was written"):
        status(stopped.path)


def test_lines_behind_the_seal_end_no_trial(stopped: Folder) -> None:
    """The fifth trial is given the end of the first, and no KL."""
    expected = status(stopped.path).trials
    lines = [json.loads(line) for line in stopped.journal.read_text().splitlines()]
    forged = [line | {"trial_id": 4} for line in lines if line.get("trial_id") == 0]
    for line in forged:
        end = line.get("user_attr", {}).get("end", {})
        end.update({"kls": [0.0] * len(end["kls"])} if "kls" in end else {})
    assert any("end" in line.get("user_attr", {}) for line in forged)
    with stopped.journal.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in forged)
    found = status(stopped.path).trials
    assert (found.states, found.best, found.best_kl) == (
        expected.states,
        expected.best,
        expected.best_kl,
    )


def test_this_process_lives() -> None:
    assert Driving.here(1).alive
