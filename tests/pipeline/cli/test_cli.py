"""The command line: what it prints, what it refuses and how, and what survives an interruption."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from safetensors.torch import load_file, save_file

import search_spaces
from igq.errors import readable
from igq.runtime.library import library
from pipeline.cli import main
from pipeline.cluster import InProcess
from pipeline.preparation.study import Study
from pipeline.study.folder import Folder
from pipeline.study.trials import Trial
from pipeline.tracking import InMemoryTracker
from search_spaces.demo.digits import digits_split

COMMANDS = ("spaces", "search", "compare", "export", "evaluate", "ui")
IGQ = Path(sys.executable).with_name("igq")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Igq = Callable[..., Outcome]


@pytest.fixture
def igq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Igq:
    """Run a command in this process and in tmp_path; trials run without Ray."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["igq", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> InMemoryTracker:
    """Neither Ray nor MLflow."""
    tracker = InMemoryTracker()
    monkeypatch.setattr("pipeline.cluster.ray.RayCluster", lambda address, workers: InProcess())
    monkeypatch.setattr("pipeline.tracking.mlflow.MlflowTracker", lambda uri, experiment: tracker)
    return tracker


@pytest.fixture
def space(tmp_path: Path, write_space: Callable[..., Path]) -> Path:
    return write_space(tmp_path / "space")


def assert_refused(outcome: Outcome, rule: str) -> None:
    """One message, the last on stderr, has the rule and the value; exit code 2; no traceback."""
    assert outcome.code == 2, outcome
    _, said, message = outcome.err.partition("igq: ")
    assert said, outcome.err
    assert re.search(rule, message), outcome.err
    assert "igq: " not in message
    assert outcome.out == ""
    assert "Traceback" not in outcome.out + outcome.err


def assert_done(outcome: Outcome) -> None:
    """Results alone are on stdout; stderr has progress at most."""
    assert outcome.code == 0, outcome
    for line in outcome.err.splitlines():
        assert re.search(r" \.\.\.$|^  .*: |^\d+/\d+ trials|^Trials ran on ", line), line
        assert line not in outcome.out.splitlines()


class TestHelp:
    @pytest.mark.parametrize("arguments", [(), ("--help",)], ids=["igq", "igq --help"])
    def test_igq_alone_lists_its_commands(self, igq: Igq, arguments: tuple[str, ...]) -> None:
        outcome = igq(*arguments)
        assert outcome.code == 0
        assert all(f" {command} " in outcome.out for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_shows_an_example(self, igq: Igq, command: str) -> None:
        outcome = igq(command, "--help")
        assert outcome.code == 0
        assert f"Example: igq {command}" in outcome.out

    def test_spaces_lists_every_bundled_space(self, igq: Igq) -> None:
        outcome = igq("spaces")
        assert outcome.code == 0
        assert all(name in outcome.out for name in search_spaces.names())

    def test_models_says_why_a_model_is_not_supported(self, igq: Igq) -> None:
        outcome = igq("models", "swin_tiny_patch4_window7_224")
        assert (outcome.code, outcome.out.split()[1]) == (0, "yes")
        outcome = igq("models", "resnet18")
        assert outcome.code == 0
        assert "no" in outcome.out.split()
        assert "ResNet" in outcome.out

    MISTYPED = (
        ("serach", "serach"),
        ("search", "Missing argument 'space'"),
        ("search demo --trials 0", "'--trials': .*1"),
        ("search demo --workers 0", "'--workers': .*1"),
        ("search demo --seed -1", "'--seed': .*0"),
        ("search demo --sampler magic", "'magic'"),
        ("export studies/demo", "Missing option '--out'"),
    )

    @pytest.mark.parametrize(("line", "said"), MISTYPED, ids=[line for line, _ in MISTYPED])
    def test_a_mistyped_command_is_refused(
        self, igq: Igq, line: str, said: str, tmp_path: Path
    ) -> None:
        outcome = igq(*line.split())
        assert outcome.code == 2
        assert re.search(said, re.sub(r"[│\s]+", " ", outcome.err), re.IGNORECASE)
        assert list(tmp_path.iterdir()) == []


def damage(weights: Path, how: str) -> None:
    tensors = load_file(weights)
    if how == "NaN":
        tensors["norm.weight"][3] = torch.nan
    elif how == "another shape":
        tensors["norm.weight"] = torch.ones(13)
    elif how == "a tensor too few":
        del tensors["norm.weight"]
    save_file(tensors, weights)


@pytest.mark.usefixtures("in_process")
class TestSearchRefuses:
    """Mistakes are refused with their rule and value, and leave no folder."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, tmp_path: Path) -> Any:
        yield
        assert not (tmp_path / "study").exists()

    def test_an_unknown_space(self, igq: Igq) -> None:
        outcome = igq("search", "deit_tinny_w4a4", "--out", "study")
        assert_refused(outcome, "but got 'deit_tinny_w4a4'. Did you mean 'deit_tiny_w4a4'")

    MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
        ({"weight_bits": 1}, "`weight_bits` must be between 2 and 8, but got weight_bits=1"),
        ({"activation_bits": 9}, "`activation_bits` must be between 2 and 8, but got .*=9"),
        ({"num_groups": [2]}, "`num_groups` must be at least two numbers"),
        ({"model": "vit_tinny"}, "vit_tinny"),
        (
            {"budget": {"bops": 10}},
            r"cheapest possible allocation's .* BOPs, but got budget=10",
        ),
        ({"weights": "none.safetensors"}, r"none\.safetensors could not be read as weights"),
        ({"images": None}, "`images` must be given"),
        ({"search_images": 9999}, "must hold at least 9999 images for search"),
    )

    @pytest.mark.parametrize(
        ("change", "rule"), MISTAKES, ids=[next(iter(change)) for change, _ in MISTAKES]
    )
    def test_a_space_with_a_mistake(
        self,
        igq: Igq,
        write_space: Callable[..., Path],
        tmp_path: Path,
        change: dict[str, Any],
        rule: str,
    ) -> None:
        path = write_space(tmp_path / "space", **change)
        assert_refused(igq("search", path, "--out", "study"), rule)

    @pytest.mark.parametrize(
        ("how", "rule"),
        [
            ("NaN", "must hold finite weights, but norm.weight has NaN or infinity"),
            ("another shape", r"norm.weight has shape \[13\] where the model has \[12\]"),
            ("a tensor too few", "lacks norm.weight"),
        ],
        ids=["NaN", "another shape", "a tensor too few"],
    )
    def test_weights_that_are_damaged_or_do_not_fit(
        self, igq: Igq, space: Path, how: str, rule: str
    ) -> None:
        damage(space.with_name("weights.safetensors"), how)
        assert_refused(igq("search", space, "--out", "study"), rule)

    def test_an_empty_image_folder(self, igq: Igq, space: Path, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        outcome = igq("search", space, "--images", "images", "--out", "study")
        assert_refused(outcome, "`images` must hold images that PIL reads, got images")

    def test_an_unreadable_image(self, igq: Igq, space: Path, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for i in range(9):
            Image.new("L", (8, 8), i).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "images" / "broken.png").write_bytes(b"no image")
        outcome = igq("search", space, "--images", "images", "--out", "study")
        assert_refused(outcome, r"every image must be readable, but .*broken\.png is not")

    def test_no_such_image_folder(self, igq: Igq, space: Path) -> None:
        outcome = igq("search", space, "--images", "nowhere", "--out", "study/of/mine")
        assert_refused(outcome, "`images` must be a folder.* but got 'nowhere'")

    def test_a_study_to_resume_that_is_not_there(self, igq: Igq, space: Path) -> None:
        outcome = igq("search", space, "--out", "study", "--resume")
        assert_refused(outcome, r"a study must hold study\.json, but study has none")

    def test_a_folder_that_cannot_be_written(self, igq: Igq, space: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        outcome = igq("search", space, "--out", "file/study")
        assert_refused(outcome, "`out` must be a folder that can be written, but file/study is not")


class TestSearchRefusesWhatItCannotReach:
    def test_a_cluster(self, igq: Igq, space: Path, tmp_path: Path) -> None:
        outcome = igq("search", space, "--cluster", "127.0.0.1:1", "--out", "study")
        assert_refused(outcome, "`cluster` must be .*, but got 127.0.0.1:1")
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize(
        "uri", ["http://127.0.0.1:1", "sqlite:////no/such/\0/mlflow.db"], ids=["http", "sqlite"]
    )
    def test_a_tracking_server(self, igq: Igq, space: Path, tmp_path: Path, uri: str) -> None:
        outcome = igq("search", space, "--tracking", uri, "--out", "study")
        assert_refused(outcome, f"but got {re.escape(readable(uri))}")
        assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("in_process")
@pytest.mark.slow
class TestCommandsInARow:
    """Search, export and evaluate, as a user would."""

    def test_each_says_what_comes_next(self, igq: Igq, space: Path, tmp_path: Path) -> None:
        searched = igq("search", space, "--out", "studies/tiny")
        assert_done(searched)
        for row in ("best", "uniform", "ilp", "random"):
            assert re.search(rf"^\W*{row} ", searched.out, re.MULTILINE)
        assert "The final round, on 4 images, took trial " in searched.out
        following = "igq export studies/tiny --out artifacts/tiny"
        assert f"Next: {following}" in searched.out

        exported = igq(*following.split()[1:])
        assert_done(exported)
        assert re.search(r"KL \d\.\d{4} on search images, \d\.\d{4} in the final", exported.out)
        assert (tmp_path / "artifacts" / "tiny" / "manifest.json").exists()
        trying = "evaluate artifacts/tiny --images DIR, igq run artifacts/tiny IMAGE, or igq bench"
        assert f"Next: igq {trying} artifacts/tiny\n" in exported.out

        rows = json.loads(igq("compare", "studies/tiny", "--json").out)[0]["rows"]
        assert [row["name"] for row in rows][:2] == ["best", "uniform"]
        both = ("--format", "native", "--format", "onnx")
        assert_done(igq("export", "studies/tiny", "--out", "both", *both))
        assert {path.name for path in Path("both").iterdir()} == {"native", "onnx"}
        found = json.loads(igq("export", "studies/tiny", "--out", "again", "--json").out)
        assert (found["path"], found["search_kl"] > 0) == ("again", True)
        scored = json.loads(igq("evaluate", "again", "--images", "digits", "--json").out)
        assert (scored["images"], scored["noted"]["images"]) == (797, 6)

        weights = space.with_name("weights.safetensors")
        evaluated = igq("evaluate", "artifacts/tiny", "--images", "digits", "--weights", weights)
        assert evaluated.code == 0, evaluated
        assert re.search(r"797 images, top-1 .* KL \d", evaluated.out)
        assert "noted at the end of its search, on 6 images of digits" in evaluated.out

        (tmp_path / "studies" / "tiny" / "result.json").unlink()
        early = igq("export", "studies/tiny", "--out", "early")
        assert early.code == 0
        assert "WARNING: studies/tiny has not ended: " in early.err

    def test_one_search_is_one_object_of_json(self, igq: Igq, space: Path) -> None:
        searched = igq("search", space, "--out", "tiny", "--trials", "4", "--no-rivals", "--json")
        assert "reading images ..." in searched.err
        found = json.loads(searched.out)
        assert (found["study"], found["trials"]["ended"]) == ("tiny", 4)
        assert found["comparisons"][0]["name"] == "best"
        assert found["best"]["bops"] <= found["budget"]

    def test_classes_in_another_order_are_a_loud_warning(
        self, igq: Igq, space: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "images"
        digits = digits_split().rest
        names = sorted(str(number) for number in range(1, 11))
        for place in range(120):
            path = folder / names[int(digits.labels[place])] / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(((digits.images[place, 0] + 1) * 127.5).astype("uint8")).save(path)
        line = ["search", "demo", "--images", folder, "--no-rivals", "--trials", "4"]
        space = tmp_path / "demo.yaml"
        bundled = Path(search_spaces.__file__).parent / "demo.yaml"
        text = re.sub(
            r"(?m)^(calibration|search|final|validation)_images: .*$", "", bundled.read_text()
        )
        weights = bundled.parent / "demo" / "digits_vit.safetensors"
        text = re.sub(r"(?m)^weights: .*$", f"weights: {weights}", text)
        few = "calibration_images: 8\nsearch_images: 40\nfinal_images: 0\nvalidation_images: 40\n"
        few += "sensitivity_images: 2\nweight_method: nearest\n"
        space.write_text(text + few)
        line[1] = space
        warned = igq(*line, "--out", "natural", "--engine", "eager")
        assert warned.code == 0
        assert "WARNING: full precision's top-1 is " in warned.err
        right = igq(*line, "--out", "right", "--engine", "eager", "--classes", "alphabetical")
        assert right.code == 0
        assert "WARNING" not in right.err
        assert igq("export", "right", "--out", "artifact").code == 0
        evaluated = igq("evaluate", "artifact", "--images", folder)
        top1 = float(re.search(r"top-1 ([\d.]+)%", evaluated.out)[1])  # type: ignore[index]
        assert top1 > 60
        assert "WARNING" not in evaluated.err

    def test_seeds_are_studies_of_their_own_and_compared(
        self, igq: Igq, space: Path, in_process: InMemoryTracker, tmp_path: Path
    ) -> None:
        line = ("search", space, "--out", "seeds", "--trials", "4", "--seeds", "2", "--seed", "3")
        searched = igq(*line)
        assert_done(searched)
        assert "interval over seeds" in searched.out
        assert sorted(path.name for path in (tmp_path / "seeds").iterdir()) == ["seed-3", "seed-4"]
        folders = ("seeds/seed-3", "seeds/seed-4")
        compared = igq("compare", *folders, "--plot", "seeds.png")
        assert_done(compared)
        for row in ("best", "uniform", "ilp", "random", "repaired"):
            assert re.search(rf"^\W*{row} ", compared.out, re.MULTILINE)
        assert (tmp_path / "seeds.png").exists()
        assert igq(*line, "--resume").code == 0

    def test_a_budget_is_chosen_after_a_search_for_the_front(self, igq: Igq, space: Path) -> None:
        searched = igq("search", space, "--out", "front", "--front", "--trials", "20")
        assert_done(searched)
        assert "KL on search images for BOPs" in searched.out
        for budget in ("uniform:1", "uniform:4"):
            out = f"artifacts/{budget.replace(':', '')}"
            exported = igq("export", "front", "--budget", budget, "--out", out)
            assert_done(exported)
        refused = igq("export", "front", "--budget", "bops:1", "--out", "none")
        assert_refused(refused, "cheapest possible allocation's")
        assert_refused(igq("export", "front", "--budget", "8", "--out", "none"), "`budget` must be")

    def test_a_folder_without_a_study_is_not_compared(self, igq: Igq) -> None:
        assert_refused(igq("compare", "nowhere"), "must hold study.json")

    def test_a_study_of_another_model_is_not_resumed(
        self, igq: Igq, space: Path, write_space: Callable[..., Path], tmp_path: Path
    ) -> None:
        assert igq("search", space, "--out", "study", "--trials", "4").code == 0
        before = (tmp_path / "study" / "study.json").read_bytes()
        other = write_space(tmp_path / "other", seed=1)
        outcome = igq("search", other, "--out", "study", "--resume")
        assert_refused(outcome, "`resume` needs the study that was started in study, but its model")
        assert (tmp_path / "study" / "study.json").read_bytes() == before

        assert_refused(igq("search", space, "--out", "study"), "`out` must not hold a study yet")
        exported = igq(
            "export", "study", "--out", "new", "--weights", other.with_name("weights.safetensors")
        )
        assert_refused(exported, "`weights` must be those that were searched")
        assert not (tmp_path / "new").exists()

    def test_an_export_is_refused_where_something_is(self, igq: Igq, tmp_path: Path) -> None:
        assert_refused(igq("export", "nowhere", "--out", "new"), r"must hold study\.json")
        assert not (tmp_path / "new").exists()

    def test_evaluating_what_is_no_artifact_is_refused(self, igq: Igq, tmp_path: Path) -> None:
        outcome = igq("evaluate", "nowhere", "--images", "digits")
        assert_refused(outcome, "nowhere could not be read as an artifact")

    def test_pages_of_no_study_are_refused(self, igq: Igq, tmp_path: Path) -> None:
        assert_refused(igq("ui", "nowhere"), r"must hold study\.json")
        assert list(tmp_path.iterdir()) == []


# From here on the real thing: Ray, MLflow, and the command in a process of its own.


@dataclass(frozen=True)
class Kept:
    """The remains of a study on disk: the journal's trials and MLflow's runs."""

    trials: tuple[Trial, ...]
    parents: list[Run]
    runs: list[Run]

    @classmethod
    def of(cls, study: Path) -> "Kept":
        client = MlflowClient(tracking_uri=f"sqlite:///{study / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments()]
        found = list(client.search_runs(experiments, max_results=1000))
        parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        runs = [run for run in found if run not in parents]
        return cls(Study.open(study).trials(), parents, runs)

    def assert_whole(self, trials: int) -> None:
        """Every trial ended, in the journal and in MLflow, and each of them once."""
        assert len(self.trials) == trials
        numbers = Counter(trial.number for trial in self.trials)
        assert set(numbers.values()) == {1}
        assert Counter(int(run.data.tags["igq.trial"]) for run in self.runs) == numbers
        assert {run.info.status for run in self.runs} <= {"FINISHED", "KILLED", "FAILED"}
        assert [run.info.status for run in self.parents] == ["FINISHED"]
        sampled = [t.proposal.allocation for t in self.trials if t.proposal.origin == "sampler"]
        assert len(set(sampled)) == len(sampled)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a search as a user would, in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(space: Path, *more: str) -> subprocess.Popen[str]:
        options = ["--out", "study", "--workers", "2", "--no-rivals", *more]
        command = [str(IGQ), "search", str(space), *options]
        started.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for_trials(process: subprocess.Popen[str], study: Path, trials: int) -> None:
    """Until so many trials have ended, as the journal says."""
    journal = Folder(study).journal
    while process.poll() is None:
        written = journal.read_text() if journal.exists() else ""
        ended = re.findall(r'"state":"(?:complete|pruned)"', written)
        if len(ended) >= trials:
            return
        time.sleep(0.05)
    raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")


@pytest.mark.ray
def test_a_search_that_is_interrupted_and_then_killed_loses_no_trial_and_runs_none_twice(
    start: Start, write_space: Callable[..., Path], tmp_path: Path
) -> None:
    trials, study = 48, tmp_path / "study"
    space = write_space(tmp_path / "space", trials=trials, num_groups=[1, 2, 3, 4])

    interrupted = start(space)
    wait_for_trials(interrupted, study, 3)
    interrupted.send_signal(signal.SIGINT)
    out, err = interrupted.communicate(timeout=120)
    assert (interrupted.returncode, out) == (130, "")
    assert re.search(r"(?m)^Interrupted\. To go on: igq search .* --resume$", err)
    first = Kept.of(study)
    assert 2 <= len(first.trials) < trials  # one may have been noted and not told yet
    assert [run.info.status for run in first.parents] == ["KILLED"]

    killed = start(space, "--resume")
    wait_for_trials(killed, study, len(first.trials) + 3)
    killed.kill()
    killed.communicate(timeout=120)
    second = Kept.of(study)
    assert len(first.trials) + 2 <= len(second.trials) < trials
    assert all(trial in second.trials for trial in first.trials)

    resumed = start(space, "--resume")
    out, err = resumed.communicate(timeout=240)
    assert_done(Outcome(resumed.returncode, out, err))
    kept = Kept.of(study)
    kept.assert_whole(trials)
    assert all(trial in kept.trials for trial in second.trials)
    assert Counter(trial.proposal.origin for trial in kept.trials) == {
        "uniform": 1,
        "ilp": 1,
        "fisher": 1,
        "random": 8,
        "sampler": 37,
    }


@pytest.mark.skipif(library() is None, reason="the runtime is not built")
def test_profile_writes_a_latency_table_and_prints_it(igq: Igq, tmp_path: Path) -> None:
    said = igq("profile", "demo", "--target", "here", "--rounds", 2)
    assert said.code == 0
    assert "on here (" in said.out
    assert "Wrote latency.json." in said.out
    assert (tmp_path / "latency.json").is_file()
