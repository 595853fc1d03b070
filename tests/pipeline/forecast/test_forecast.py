"""The forecast of a search, beside the search itself."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import search_spaces
from pipeline.cli import main
from pipeline.cluster.placement import Machine, WorkerMemory
from pipeline.commands.studies.plan import Means, plan, workers_of
from pipeline.errors import DataError, StudyError
from pipeline.forecast.probe import Rates, seconds_each
from pipeline.forecast.tables import choices_lines, resources_lines, steps_table
from pipeline.study.request import Request


@pytest.fixture(autouse=True)
def _a_short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.forecast.probe.EACH", 0.02)


@pytest.fixture
def request_of(write_space: Callable[..., Path], tmp_path: Path) -> Callable[..., Request]:
    def make(**more: object) -> Request:
        space = search_spaces.load(write_space(tmp_path / "space"))
        return Request(space, tmp_path / "study", **more)  # type: ignore[arg-type]

    return make


def passes_of(request: Request, **means: int) -> dict[str, int]:
    return {step.name: step.passes for step in plan(request, Means(**means)).steps}


def test_passes_are_those_that_a_search_counts(request_of: Callable[..., Request]) -> None:
    """12 trials of 8 images; 5 grouped layers of one block with 3 settings, on 2 images."""
    passes = passes_of(request_of())
    measured = passes["measure sensitivities"]
    assert measured == round(2 * (1 + 5 * 3 * (1 - 1 / 3)))
    assert passes["trials"] == 12 * 8
    assert passes["final round"] == 13 * 4  # 12 trials, and full precision
    given = 12 * 8 + measured + passes["predict sensitivities"] + 13 * 4
    assert passes["rivals"] == 2 * given - measured
    assert passes["compare"] == (1 + 6) * 6
    assert "correct weights" not in passes  # nearest codes


def test_without_rivals_only_the_baselines_are_compared(request_of: Callable[..., Request]) -> None:
    passes = passes_of(request_of(rivals=False))
    assert "rivals" not in passes
    assert passes["compare"] == (1 + 5) * 6


def test_nothing_is_written_and_seeds_are_all_counted(
    request_of: Callable[..., Request], tmp_path: Path
) -> None:
    request = request_of()
    before = sorted(tmp_path.rglob("*"))
    one, three = plan(request), plan(request, Means(seeds=3))
    assert sorted(tmp_path.rglob("*")) == before
    assert three.passes == 3 * one.passes
    assert three.places["Study"] == f"{tmp_path / 'study'}, in folders from seed-0"


def test_what_a_search_refuses_is_refused(request_of: Callable[..., Request]) -> None:
    with pytest.raises(StudyError, match=r"^a study must hold study\.json"):
        plan(request_of(resume=True))
    request = request_of()
    many = replace(request, space=request.space.model_copy(update={"search_images": 5000}))
    with pytest.raises(DataError, match=r"digits must hold at least 5000 images for search that"):
        plan(many)


def test_a_password_is_not_printed(request_of: Callable[..., Request]) -> None:
    forecast = plan(request_of(), Means(tracking="http://me:secret@host:5000"))
    assert forecast.places["Trials"] == "http://host:5000"
    assert "secret" not in json.dumps(forecast.json(), default=str)


def test_workers_share_the_cores_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(4)), raising=False)
    known = {workers: workers_of(Means(workers)) for workers in (1, 3, 8)}
    assert {w: (one.threads, one.at_once) for w, one in known.items()} == {
        1: (4, 1),
        3: (1, 3),
        8: (1, 4),
    }


def test_a_cluster_tells_which_workers_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Machine("one", 4, memory=3 * 10**9), Machine("two", 2), Machine("head", 0)]
    monkeypatch.setattr("pipeline.cluster.ray.connected", lambda *_: nullcontext())
    monkeypatch.setattr("pipeline.cluster.ray.machines", lambda: there)
    asked: list[bool] = []
    monkeypatch.setattr("pipeline.cluster.ray.check_nodes", lambda wanted: asked.append(True))
    every = workers_of(Means(cluster="head:6379"), WorkerMemory(10**9, 10**9))
    assert (every.count, every.threads, every.nodes) == (5, 1, {"one": 3, "two": 2})
    few, many = (workers_of(Means(n, "head:6379"), WorkerMemory(10**9, 10**9)) for n in (2, 99))
    assert (few.count, few.threads, few.nodes) == (2, 2, {"one": 2, "two": 1})
    assert (many.count, many.threads) == (sum(many.nodes.values()), 1)
    assert len(asked) == 3


def test_a_probe_takes_batches_as_large_as_the_time_allows() -> None:
    taken: list[int] = []
    seconds_each(taken.append, most=7, seconds=0.01)
    assert (taken[0], taken[-1], max(taken)) == (1, 7, 7)


def test_a_shared_processor_takes_longer_for_what_is_no_pass(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 s at both ends, and 0.15 s for each of the 12 trials of 8 images and those of rivals."""
    found = {}
    for slower in (1.0, 3.0):
        rates = Rates(reading=0.0, full=0.0, quantized=0.0, slowdown=slower)
        monkeypatch.setattr("pipeline.commands.studies.plan.probe", lambda *any, rates=rates: rates)
        forecast = plan(request_of())
        passes = {step.name: step.passes for step in forecast.steps}
        found[slower] = {step.name: step.seconds for step in forecast.steps}
    rivals = 0.15 * passes["rivals"] / 8
    expected = {"start and end": 15.0, "trials": 0.15 * 12, "rivals": rivals}
    assert found[1.0] == pytest.approx(expected)
    assert found[3.0] == pytest.approx({name: 3 * value for name, value in expected.items()})


def test_what_follows_gradients_takes_one_thread(
    request_of: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Rates(reading=0.0, full=1.0, quantized=0.0, one_thread=4.0)
    monkeypatch.setattr("pipeline.commands.studies.plan.probe", lambda *any: rates)
    steps = {step.name: step for step in plan(request_of()).steps}
    measure, predict = steps["measure sensitivities"], steps["predict sensitivities"]
    assert measure.seconds == measure.passes > 0
    assert predict.seconds == 4.0 * predict.passes > 0
    assert replace(rates, one_thread=None).gradients == 1.0


def test_80_columns_hold_it(request_of: Callable[..., Request]) -> None:
    forecast = plan(request_of())
    console = Console(width=80, record=True, file=sys.stderr)
    console.print(steps_table(forecast))
    assert max(map(len, console.export_text().splitlines())) <= 80
    lines = [*choices_lines(forecast), *resources_lines(forecast)]
    assert lines[1].startswith("Layers: 10 (1 embedding, 4 linear, 1 query")
    assert lines[2].startswith("Choices: 5, each of 3 settings (1 2 4); 10^2 allocations")
    assert "Images: 2 calibration, 8 search, 6 validation, 4 final; from digits" in lines


def test_the_command_prints_it_and_starts_nothing(
    write_space: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = write_space(tmp_path / "space")
    monkeypatch.chdir(tmp_path)

    def printed(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["igq", "search", str(space), "--plan", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    text = printed("--workers", "1")
    assert re.search(r"(?m)^ all +[\d,]+ +\d+ (s|min)", text)
    assert text.endswith(f"Nothing was written. Start: igq search {space} --workers 1\n")
    found = json.loads(printed("--json"))
    assert found["choices"]["settings"] == ["1", "2", "4"]
    assert found["passes"] == sum(step["passes"] for step in found["steps"])
    assert [path.name for path in tmp_path.iterdir()] == ["space"]
