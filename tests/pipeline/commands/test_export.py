"""From a study to a model that runs: what is exported is what was searched."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

import igq
import search_spaces
from igq import ArtifactError, Candidates, Corrected, InvalidArgumentError, Observation
from igq.evaluation import log_probabilities
from pipeline.cluster import InProcess, ProposalFeed
from pipeline.commands.evaluate import evaluate_artifact
from pipeline.commands.export import Exported, export
from pipeline.commands.result import Result
from pipeline.commands.search import run as search
from pipeline.data import Images, ImageSource, Preprocessing, draw, open_source
from pipeline.errors import StudyError
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.preparation.cache import load_candidates, load_corrected
from pipeline.preparation.models import load_model
from pipeline.study.best import best, completed
from pipeline.study.final import Final, save_final
from pipeline.study.folder import Folder
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request
from pipeline.study.trials import Trial
from pipeline.tracking import InMemoryTracker
from search_spaces import parse_budget


@dataclass(frozen=True)
class Interrupted(InProcess):
    """A cluster that is interrupted when the feed hears of its `after`-th report."""

    after: int = 50

    def run(self, task: Task, feed: ProposalFeed) -> None:
        calls = iter(range(self.after))

        class Counted:
            next, finish = feed.next, feed.finish

            def report(self, number: int, chunk: int, observation: Observation) -> bool:
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return feed.report(number, chunk, observation)

        super().run(task, Counted())


@dataclass(frozen=True)
class Searched:
    """A finished study."""

    request: Request
    result: Result

    @property
    def folder(self) -> Path:
        return self.request.out

    def images(self) -> dict[str, Images]:
        """The images of the study, drawn again."""
        source = open_source("digits", Preprocessing.of(load_model(self.request.space)[0]))
        counts = {"calibration": 2, "search": 8, "validation": 6}
        return draw({name: (source, n, n) for name, n in counts.items()}, seed=0)

    def candidates(self) -> Candidates:
        space, model = self.request.space, load_model(self.request.space)[0]
        (path,) = Folder(self.folder).cache.glob("candidates_*.safetensors")
        return load_candidates(path, igq.layers(model), space.scheme, space.options)

    def weights(self) -> Corrected:
        """The corrected weights of the study."""
        (path,) = Folder(self.folder).cache.glob("weights_*.safetensors")
        return load_corrected(path, load_model(self.request.space)[0], bits=4)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, write_space: Callable[..., Path]
) -> Searched:
    folder = tmp_path_factory.mktemp("searched")
    space = search_spaces.load(write_space(folder / "space", weight_method="corrected"))
    request = Request(space, folder / "study", figures=False)
    result = search(request, InProcess(), InMemoryTracker(), SilentDisplay())
    return Searched(request, result)


@pytest.fixture(scope="module")
def exported(searched: Searched) -> Exported:
    return export(searched.folder, searched.folder.parent / "artifact")


def write_digits(folder: Path, images: Images) -> None:
    """Images in folders of their classes, as `digits` has them: 0 to 16 become -1 to 1."""
    assert images.labels is not None
    for i, (image, label) in enumerate(zip(images.values, images.labels.tolist(), strict=True)):
        path = folder / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = ((image[0] + 1) / 2 * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(path)


class TestExport:
    def test_is_the_best_trial(self, searched: Searched, exported: Exported) -> None:
        assert exported.trial == searched.result.best
        assert igq.load(exported.path).allocation == searched.result.best.proposal.allocation

    def test_predicts_what_the_trial_s_allocation_predicts(
        self, searched: Searched, exported: Exported
    ) -> None:
        chosen = searched.candidates().select(searched.result.best.proposal.allocation)
        corrected = searched.weights()
        quantized = corrected.quantize(chosen)
        images = searched.images()["validation"].values
        with torch.inference_mode():
            assert torch.equal(igq.load(exported.path).model(images), quantized(images))

    def test_reaches_the_kl_that_the_trial_had(
        self, searched: Searched, exported: Exported
    ) -> None:
        images = searched.images()["search"].values
        model = load_model(searched.request.space)[0]
        score = igq.evaluate(igq.load(exported.path).model, images, reference=model)
        assert score.kls is not None
        assert score.kls.tolist() == pytest.approx(
            list(searched.result.best.observation.kls), rel=1e-3
        )

    def test_notes_where_it_comes_from(self, searched: Searched, exported: Exported) -> None:
        notes = igq.load(exported.path).notes
        assert notes == json.loads(json.dumps(exported.notes))
        assert notes["trial"] == searched.result.best.number
        assert notes["result"] == json.loads(searched.result.folder.result.read_text())

    def test_of_an_unfinished_study_takes_the_best_so_far(
        self, make_request: Callable[..., Request], display: Display, tmp_path: Path
    ) -> None:
        request, tracker = make_request(), InMemoryTracker()
        with pytest.raises(KeyboardInterrupt):
            search(request, Interrupted(), tracker, display)
        assert 0 < len(tracker.trials) < 12
        assert tracker.study is not None
        exported = export(request.out, tmp_path / "artifact")
        assert exported.trial == best(tracker.trials.values(), tracker.study.budget)
        assert exported.notes["result"] is None
        assert igq.load(exported.path).allocation == exported.trial.proposal.allocation

    def test_weights_may_have_been_moved(self, searched: Searched, tmp_path: Path) -> None:
        assert searched.request.space.weights is not None
        moved = tmp_path / "moved.safetensors"
        moved.write_bytes(searched.request.space.weights.read_bytes())
        assert export(searched.folder, tmp_path / "artifact", moved).trial == searched.result.best

    def test_changes_nothing_in_the_study(self, searched: Searched, tmp_path: Path) -> None:
        def contents() -> dict[Path, bytes]:
            files = (path for path in searched.folder.rglob("*") if path.is_file())
            return {path: path.read_bytes() for path in files}

        before = contents()
        export(searched.folder, tmp_path / "artifact")
        assert contents() == before


class TestFinalRound:
    """Its winner is what the search found, though another trial has less KL on search images."""

    @pytest.fixture
    def ranked(self, searched: Searched) -> list[Trial]:
        """Trials within the budget, least KL on the search images first."""
        written = json.loads(searched.result.folder.result.read_text())
        return completed(searched.result.trials, written["budget"])

    @pytest.fixture
    def study(self, searched: Searched, ranked: list[Trial], tmp_path: Path) -> Path:
        """The finished study, whose final round the worst of them has won."""
        copy = shutil.copytree(searched.folder, tmp_path / "study")
        save_final(Folder(copy).final, Final({ranked[0].number: (0.5,), ranked[-1].number: (0.4,)}))
        return copy

    def test_its_winner_is_exported(self, study: Path, ranked: list[Trial], tmp_path: Path) -> None:
        exported = export(study, tmp_path / "artifact")
        assert exported.trial == ranked[-1] != ranked[0]
        assert exported.notes["search_kl"] == ranked[-1].kl > ranked[0].kl  # type: ignore[operator]
        assert exported.notes["final_kl"] == 0.4
        assert igq.load(exported.path).allocation == ranked[-1].proposal.allocation

    def test_it_counts_for_the_space_s_own_budget_however_that_is_asked_for(
        self, study: Path, ranked: list[Trial], tmp_path: Path
    ) -> None:
        exported = export(study, tmp_path / "artifact", budget=parse_budget("uniform:2"))
        assert exported.trial == ranked[-1]

    def test_another_budget_has_had_none(
        self, study: Path, ranked: list[Trial], tmp_path: Path
    ) -> None:
        exported = export(study, tmp_path / "artifact", budget=parse_budget("uniform:4"))
        assert exported.trial == ranked[0]
        assert exported.notes["final_kl"] is None

    def test_what_the_search_noted_is_of_its_best_alone(
        self, study: Path, ranked: list[Trial], searched: Searched, tmp_path: Path
    ) -> None:
        for number, trial in enumerate((ranked[0], ranked[-1])):
            save_final(Folder(study).final, Final({trial.number: (0.5,)}))
            exported = export(study, tmp_path / str(number))
            assert exported.trial == trial
            assert (exported.notes["result"] is not None) == (trial == searched.result.best)

    def test_a_damaged_one_is_refused_only_where_it_decides(
        self, study: Path, ranked: list[Trial], tmp_path: Path
    ) -> None:
        Folder(study).final.write_text("{}")
        with pytest.raises(StudyError, match="must hold a study's final round"):
            export(study, tmp_path / "artifact")
        assert not (tmp_path / "artifact").exists()
        budget = parse_budget("uniform:4")
        assert export(study, tmp_path / "artifact", budget=budget).trial == ranked[0]


class TestRefusedExport:
    def test_an_unknown_format_before_any_work(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="`format` must be one of native"):
            export(tmp_path / "nowhere", tmp_path / "artifact", format="tape")

    def test_other_weights(
        self, searched: Searched, tmp_path: Path, write_space: Callable[..., Path]
    ) -> None:
        others = write_space(tmp_path / "others", seed=1).with_name("weights.safetensors")
        with pytest.raises(StudyError, match=r"^`weights` must be those that were searched, "):
            export(searched.folder, tmp_path / "artifact", others)
        assert not (tmp_path / "artifact").exists()

    def test_a_folder_that_is_there(self, searched: Searched, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="must not exist yet"):
            export(searched.folder, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be(self, searched: Searched, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ArtifactError, match="must be writable"):
            export(searched.folder, tmp_path / "file" / "artifact")

    def test_no_study(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"^a study must hold study\.json"):
            export(tmp_path, tmp_path / "artifact")

    def test_a_study_without_a_trial_that_completed(
        self, make_request: Callable[..., Request], display: Display, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            search(make_request(), Interrupted(after=1), InMemoryTracker(), display)
        with pytest.raises(StudyError, match="must have a trial that completed"):
            export(tmp_path / "study", tmp_path / "artifact")
        assert not (tmp_path / "artifact").exists()


class TestEvaluate:
    def test_agrees_with_the_search_s_table_on_the_same_images(
        self, searched: Searched, exported: Exported, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        validation = searched.images()["validation"]
        values, labels = validation.loaded(), validation.labels
        assert labels is not None
        source = ImageSource("six", lambda i: (values[i], int(labels[i])), len(values))
        monkeypatch.setattr("pipeline.commands.evaluate.open_source", lambda *_: source)
        measured = evaluate_artifact(exported.path, "digits", searched.request.space.weights)
        row = searched.result.comparisons[0]
        assert measured.fingerprint == exported.notes["result"]["validation"]["fingerprint"]
        assert measured.images == 6
        assert measured.score.kl == pytest.approx(row.kl.mean, rel=1e-5)
        assert row.top1 is not None
        assert measured.score.top1 == row.top1.mean
        assert measured.reference_top1 == searched.result.validation.reference_top1

    def test_reads_every_image_of_a_folder(
        self, searched: Searched, exported: Exported, tmp_path: Path
    ) -> None:
        write_digits(tmp_path / "images", searched.images()["search"])
        measured = evaluate_artifact(exported.path, str(tmp_path / "images"), None)
        assert measured.images == 8
        assert measured.score.kl is None

    def test_has_no_kl_without_the_full_precision_weights(self, exported: Exported) -> None:
        measured = evaluate_artifact(exported.path, "digits", None)
        assert measured.images == 797
        assert measured.score.kl is None
        assert measured.score.top1 is not None
        assert measured.reference_top1 is None

    def test_says_how_far_it_is(self, searched: Searched, exported: Exported) -> None:
        heard: dict[str, list[float]] = {}

        class Heard(SilentDisplay):
            def step(self, name: str) -> Callable[[float], None]:
                return heard.setdefault(name, []).append

        evaluate_artifact(exported.path, "digits", searched.request.space.weights, Heard())
        for shares in heard.values():
            assert shares == sorted(shares)
            assert shares[-1] == 1.0

    def test_an_artifact_that_no_study_made_is_refused(
        self, searched: Searched, tmp_path: Path
    ) -> None:
        """Saved by `igq.save` alone it does not say how images become its input."""
        model = load_model(searched.request.space)[0]
        chosen = searched.candidates().select(igq.uniform(searched.candidates().layers, 2))
        path = igq.save(igq.quantize(model, chosen, weight_bits=4), tmp_path / "artifact")
        with pytest.raises(ArtifactError, match="preprocessing"):
            evaluate_artifact(path, "digits", None)

    def test_no_artifact_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="could not be read as an artifact"):
            evaluate_artifact(tmp_path, "digits", None)


def test_a_worker_s_objective_agrees_with_the_exported_model(
    searched: Searched, exported: Exported
) -> None:
    images = searched.images()["search"].values
    model = load_model(searched.request.space)[0]
    corrected = searched.weights()
    task = Task(
        corrected.model,
        {4: corrected.weights},
        searched.candidates(),
        images,
        log_probabilities(model, images),
        chunk_size=8,
    )
    (seen,) = Objective(task).evaluate(exported.trial.proposal.allocation)
    assert seen.kls == pytest.approx(exported.trial.observation.kls, rel=1e-3)
