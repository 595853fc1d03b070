"""The commands on the results that studies share."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.machine.cache import DAY, clear_shared, shared_folder, shared_results
from pipeline.errors import StudyError
from pipeline.files import write_json
from pipeline.preparation.parts.shared import ENTRY
from tests.golden.make_study import run_igq


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"IGQ_CACHE": ""}, None),
        ({"IGQ_CACHE": "/scratch/igq"}, "/scratch/igq"),
        ({"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/igq"),
        ({"HOME": "/home/me"}, "/home/me/.cache/igq"),
    ],
)
def test_the_folder_is_the_named_one_or_the_users(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str | None
) -> None:
    for name in ("IGQ_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shared_folder() == (None if folder is None else Path(folder))


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Path]:
    """Adds an entry of an age in days to a shared folder."""
    monkeypatch.setenv("IGQ_CACHE", str(tmp_path))

    def call(name: str, days: float) -> Path:
        folder = tmp_path / "1.0-1" / name
        made = time.time() - days * DAY
        write_json(folder / ENTRY, {"for": f"{name} of vit", "made": made, "used_by": ["/s/one"]})
        (folder / f"{name}.json").write_bytes(bytes(2_000_000))
        return folder

    return call


def test_the_latest_come_first_and_old_ones_are_cleared(
    add: Callable[[str, float], Path],
) -> None:
    old, new = add("harm_1", 40.0), add("weights_2", 2.0)
    assert [entry.path for entry in shared_results()] == [new, old]
    assert [entry.path for entry in clear_shared(older=30.0)] == [old]
    assert new.exists()
    assert not old.exists()
    with pytest.raises(StudyError, match="`older` must be 0 days or more, but got -1"):
        clear_shared(older=-1.0)


def test_the_command_lists_and_clears(add: Callable[[str, float], Path]) -> None:
    add("harm_1", 3.0)
    code, printed = run_igq("cache")
    assert code == 0
    assert all(part in printed for part in ("harm_1 of vit", "2.0 MB", "3 days", "/s/one"))
    assert run_igq("cache", "clear", "--older", "9")[1].startswith("Cleared 0 shared results")
    assert run_igq("cache", "clear")[1].startswith("Cleared 1 shared results")
    assert "No results are shared yet" in run_igq("cache")[1]


def test_the_command_lists_the_latest_ten_unless_all_are_asked_for(
    add: Callable[[str, float], Path],
) -> None:
    for number in range(12):
        add(f"entry-{number}", float(number))
    latest, every = run_igq("cache")[1], run_igq("cache", "--all")[1]
    assert latest.rstrip().endswith("; --all lists the 2 others.")
    assert latest.count("12 in all, ") == every.count("12 in all, ") == 1
    assert "--all" not in every
    assert len(every.splitlines()) > len(latest.splitlines())
