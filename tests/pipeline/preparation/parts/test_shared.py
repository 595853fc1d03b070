"""Results that studies share: computed once, refused when damaged, safe for two searches."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.preparation.parts.cache import load_sensitivity, save_sensitivity
from pipeline.preparation.parts.shared import Results, entries, remove
from pipeline.study.request import Request, Sampler
from tests.makers import settings_of

TABLE = settings_of({"fc1": {2: 0.5, 4: 0.25}})


class Heard:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, name: str) -> Callable[[float], None]:
        return lambda share: None

    def trials(self, snapshot: object) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


class Computing:
    """Writes a table, and counts how often."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.times, self.seconds = 0, seconds

    def of(self, path: Path) -> Callable[[], None]:
        def compute() -> None:
            self.times += 1
            time.sleep(self.seconds)
            save_sensitivity(path, TABLE)

        return compute


def have(home: Path, study: str, computing: Computing, display: Heard | None = None) -> Path:
    path = home / study / "cache" / "harm_0123.json"
    results = Results(home / study, home / "shared", display or Heard())
    results.ensure(path, "sensitivities", computing.of(path))
    return path


def test_a_second_study_computes_nothing(tmp_path: Path) -> None:
    computing = Computing()
    paths = [have(tmp_path, study, computing) for study in ("one", "two", "two")]
    assert computing.times == 1
    assert all(load_sensitivity(path) == TABLE for path in paths)
    (entry,) = entries(tmp_path / "shared")
    assert entry.made_for == "sensitivities"
    assert [Path(one).name for one in entry.used_by] == ["one", "two"]
    assert entry.bytes > 100


@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_entry_is_computed_again_and_mended(
    tmp_path: Path, content: bytes | None
) -> None:
    computing, heard = Computing(), Heard()
    first = have(tmp_path, "one", computing)
    (entry,) = entries(tmp_path / "shared")
    shared = entry.path / first.name
    damage = shared.read_bytes().replace(b"0.25", b"0.26") if content is None else content
    shared.unlink()
    shared.write_bytes(damage)
    assert load_sensitivity(have(tmp_path, "two", computing, heard)) == TABLE
    assert computing.times == 2
    assert "It is computed again, for all studies." in heard.said[0]
    assert load_sensitivity(have(tmp_path, "three", computing)) == TABLE
    assert computing.times == 2


def test_two_searches_at_once_compute_once(tmp_path: Path) -> None:
    computing, heard = Computing(0.3), [Heard(), Heard()]
    threads = [
        threading.Thread(target=have, args=(tmp_path, f"study {i}", computing, heard[i]))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computing.times == 1
    assert [text for one in heard for text in one.said] == [
        "Waiting for another search, which computes harm_0123."
    ]


def test_what_is_removed_is_computed_again(tmp_path: Path) -> None:
    computing = Computing()
    have(tmp_path, "one", computing)
    (entry,) = entries(tmp_path / "shared")
    remove(entry.path)
    assert entries(tmp_path / "shared") == []
    have(tmp_path, "two", computing)
    assert computing.times == 2
    assert [path.name for path in entry.path.parent.iterdir() if path.is_dir()] == ["harm_0123"]


def test_without_a_shared_folder_each_study_has_its_own(tmp_path: Path) -> None:
    computing = Computing()
    for study in ("one", "two"):
        path = tmp_path / study / "harm_0123.json"
        Results(tmp_path / study).ensure(path, "sensitivities", computing.of(path))
    assert computing.times == 2


@pytest.mark.slow
def test_another_budget_and_sampler_start_from_what_is_shared(
    make_request: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline
    from pipeline.commands.machine.cache import clear_shared, shared_results
    from pipeline.study.progress import SilentDisplay

    monkeypatch.setenv("IGQ_CACHE", str(tmp_path / "shared"))

    class Steps(SilentDisplay):
        def __init__(self) -> None:
            self.names: list[str] = []

        def step(self, name: str) -> Callable[[float], None]:
            self.names.append(name)
            return lambda share: None

    def steps(name: str, **more: object) -> list[str]:
        display, request = Steps(), make_request(tmp_path / name, trials=5, **more)
        pipeline.run(request, pipeline.InProcess(), pipeline.InMemoryTracker(), display)
        return display.names

    corrected = {"weight_method": "corrected"}
    first = steps("one", space=corrected)
    assert any(name.startswith("correcting") for name in first)
    second = steps("two", space=corrected | {"budget": {"uniform": 1}}, sampler=Sampler.RANDOM)
    assert not any(name.startswith(("fitting", "corr", "measuring", "pred")) for name in second)
    third = steps("three", space=corrected, seed=1)  # other images
    assert any(name.startswith("correcting") for name in third)
    assert len(clear_shared(older=1.0)) == 0
    assert len(clear_shared()) == 10
    assert shared_results() == []
