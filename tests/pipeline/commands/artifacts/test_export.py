"""From a study to a model that runs: what is exported is what was searched."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import igq
import search_spaces
from igq import (
    ArtifactError,
    Candidates,
    Corrected,
    InvalidArgumentError,
    Observation,
    Setting,
)
from igq.evaluation import log_probabilities
from pipeline.cluster import InProcess, ProposalFeed
from pipeline.commands.artifacts.apply import apply
from pipeline.commands.artifacts.evaluate import evaluate_artifact
from pipeline.commands.artifacts.export import Exported, export
from pipeline.commands.artifacts.verify import verify_artifact
from pipeline.commands.studies.result import Result
from pipeline.commands.studies.search import run as search
from pipeline.data import Images, ImageSource, Preprocessing, draw, open_source
from pipeline.errors import DataError, StudyError
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.preparation.models import load_model
from pipeline.preparation.parts.cache import load_candidates, load_corrected
from pipeline.preparation.study import Study
from pipeline.study.best import best, completed
from pipeline.study.final import Final, save_final
from pipeline.study.folder import Folder
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request
from pipeline.study.seals import read_sealed
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
    request = Request(space, folder / "study", rivals=False, figures=False)
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
        assert notes["result"] == read_sealed(searched.result.folder.result)

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
        written = read_sealed(searched.result.folder.result)
        return completed(searched.result.trials, written["budget"])

    @pytest.fixture
    def study(self, searched: Searched, ranked: list[Trial], tmp_path: Path) -> Path:
        """The finished study, whose final round the worst of them has won."""
        copy = shutil.copytree(searched.folder, tmp_path / "study")
        first, last = ranked[0].number, ranked[-1].number
        save_final(Folder(copy).final, Final({first: (0.5,), last: (0.4,)}, winner=last))
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

    def test_a_larger_budget_keeps_it_where_nothing_costlier_was_tried(
        self, study: Path, ranked: list[Trial], tmp_path: Path
    ) -> None:
        exported = export(study, tmp_path / "artifact", budget=parse_budget("uniform:4"))
        assert exported.trial == ranked[-1]
        assert exported.notes["final_kl"] == 0.4

    def test_a_budget_that_its_winner_does_not_fit_has_had_none(
        self, study: Path, ranked: list[Trial], tmp_path: Path
    ) -> None:
        costs = {trial.number: trial.proposal.cost for trial in ranked}
        costliest, least = max(costs, key=lambda n: costs[n]), min(costs.values())
        assert least < costs[costliest]
        save_final(Folder(study).final, Final({costliest: (0.4,)}, costliest))
        exported = export(study, tmp_path / "artifact", budget=parse_budget(f"bops:{least}"))
        assert exported.trial == completed(ranked, least)[0]
        assert exported.notes["final_kl"] is None

    def test_a_budget_beyond_the_study_s_has_had_none_where_costlier_trials_completed(
        self, study: Path, ranked: list[Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """As a front has them, whose trials have budgets of their own."""
        costliest = max(trial.proposal.cost for trial in ranked)
        monkeypatch.setattr(Study, "budget", costliest - 1)
        exported = export(study, tmp_path / "artifact", budget=parse_budget("uniform:4"))
        assert exported.trial == ranked[0]
        assert exported.notes["final_kl"] is None

    def test_what_the_search_noted_is_of_its_best_alone(
        self, study: Path, ranked: list[Trial], searched: Searched, tmp_path: Path
    ) -> None:
        for number, trial in enumerate((ranked[0], ranked[-1])):
            save_final(Folder(study).final, Final({trial.number: (0.5,)}, trial.number))
            exported = export(study, tmp_path / str(number))
            assert exported.trial == trial
            assert (exported.notes["result"] is not None) == (trial == searched.result.best)

    @pytest.mark.parametrize("budget", [None, "uniform:4"])
    def test_a_damaged_one_is_refused(
        self, study: Path, budget: str | None, tmp_path: Path
    ) -> None:
        Folder(study).final.write_text("{}")
        within = None if budget is None else parse_budget(budget)
        with pytest.raises(StudyError, match=r"final\.json must be as it was written"):
            export(study, tmp_path / "artifact", budget=within)
        assert not (tmp_path / "artifact").exists()


class TestTrial:
    def test_one_of_a_number_is_exported_whatever_is_best(
        self, searched: Searched, tmp_path: Path
    ) -> None:
        other = next(t for t in searched.result.trials if t.kl and t != searched.result.best)
        exported = export(searched.folder, tmp_path / "artifact", trial=other.number)
        assert exported.trial == other
        assert igq.load(exported.path).allocation == other.proposal.allocation
        assert exported.notes["result"] is None

    def test_one_that_is_not_there_is_refused(self, searched: Searched, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"^`trial` must be the number of a trial that saw"):
            export(searched.folder, tmp_path / "artifact", trial=999)
        assert not (tmp_path / "artifact").exists()

    def test_not_within_a_budget(self, searched: Searched, tmp_path: Path) -> None:
        budget = parse_budget("uniform:4")
        with pytest.raises(InvalidArgumentError, match="must not both be given"):
            export(searched.folder, tmp_path / "artifact", budget=budget, trial=0)


class TestAllocationFile:
    """allocation.json says what the trial had, for people and for other programs."""

    @pytest.fixture
    def content(self, exported: Exported) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((exported.path / "allocation.json").read_text())
        return content

    def test_settings_are_the_trial_s(self, content: dict[str, Any], exported: Exported) -> None:
        allocation = exported.trial.proposal.allocation
        written = {layer["name"]: Setting.parse(layer["setting"]) for layer in content["layers"]}
        assert {n: written[n].num_groups for n in allocation} == {
            n: setting.num_groups for n, setting in allocation.items()
        }
        assert {s.weight_bits for s in written.values()} == {4, None}

    def test_costs_of_layers_and_the_fixed_part_are_the_total(
        self, content: dict[str, Any], exported: Exported
    ) -> None:
        for unit in ("bops", "size"):
            costs = [layer["costs"][unit] for layer in content["layers"] if layer["costs"]]
            assert sum(costs) + content["fixed_costs"][unit] == content["totals"][unit]
        assert content["totals"]["bops"] == exported.trial.proposal.cost

    def test_scores_have_intervals_and_their_images(
        self, content: dict[str, Any], searched: Searched
    ) -> None:
        row, scores = searched.result.comparisons[0], content["scores"]["validation"]
        assert scores["kl"] == row.kl.mean
        assert scores["kl_interval"] == [row.kl.low, row.kl.high]
        assert scores["images"] == 6
        assert content["calibration"]["images"] == 2

    def test_the_digits_names_are_known(self, exported: Exported) -> None:
        names = json.loads((exported.path / "classes.json").read_text())
        assert names == [str(digit) for digit in range(10)]


class TestVerify:
    def test_the_scores_come_out_again(self, searched: Searched, exported: Exported) -> None:
        checked = verify_artifact(exported.path, "digits", searched.request.space.weights)
        assert checked.files.sealed
        assert checked.score is not None
        assert checked.score.kl == pytest.approx(searched.result.comparisons[0].kl.mean, rel=1e-4)

    def test_edited_scores_do_not(self, exported: Exported, tmp_path: Path) -> None:
        """Also where digests were computed again."""
        edited = shutil.copytree(exported.path, tmp_path / "edited")
        artifact = igq.load(exported.path)
        notes = json.loads(json.dumps(artifact.notes))
        notes["result"]["comparisons"][0]["top1"] = 1.0
        shutil.rmtree(edited)
        igq.save(artifact.model, edited, notes)
        with pytest.raises(ArtifactError, match=r"notes a top-1 of 100\.00% on 6 images, but has"):
            verify_artifact(edited, "digits")

    def test_other_images_are_refused(
        self, searched: Searched, exported: Exported, tmp_path: Path
    ) -> None:
        write_digits(tmp_path / "images", searched.images()["search"])
        with pytest.raises(DataError):
            verify_artifact(exported.path, str(tmp_path / "images"))

    def test_a_trial_without_scores_is_refused(self, searched: Searched, tmp_path: Path) -> None:
        other = next(t for t in searched.result.trials if t.kl and t != searched.result.best)
        path = export(searched.folder, tmp_path / "artifact", trial=other.number).path
        assert verify_artifact(path).score is None
        with pytest.raises(ArtifactError, match="must note scores to evaluate it"):
            verify_artifact(path, "digits")

    @pytest.mark.parametrize("value", [None, {}, "demo", {"model": None}], ids=repr)
    def test_an_odd_space_is_refused(
        self, exported: Exported, tmp_path: Path, value: object
    ) -> None:
        artifact = igq.load(exported.path)
        path = igq.save(artifact.model, tmp_path / "odd", {**artifact.notes, "space": value})
        with pytest.raises(ArtifactError, match="must note a search space"):
            evaluate_artifact(path, "digits")


class TestApply:
    """allocation.json with the same weights and images is the same model."""

    @pytest.fixture
    def allocation(self, exported: Exported, tmp_path: Path) -> Path:
        return Path(shutil.copy(exported.path / "allocation.json", tmp_path))

    def edit(self, allocation: Path, change: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads(allocation.read_text())
        change(content)
        allocation.write_text(json.dumps(content))

    def test_it_is_the_original_bit_for_bit(
        self, searched: Searched, exported: Exported, allocation: Path, tmp_path: Path
    ) -> None:
        weights = searched.request.space.weights
        assert weights is not None
        applied = apply(allocation, weights, "digits", tmp_path / "again")
        assert (applied.identical, applied.edited) == (True, ())
        images = searched.images()["validation"].values
        original, again = igq.load(exported.path), igq.load(applied.path)
        assert torch.equal(again.model(images), original.model(images))
        assert again.allocation == original.allocation
        for name in ("costs", "totals", "calibration", "classes", "preprocessing", "model"):
            assert again.notes[name] == original.notes[name]
        assert again.notes.get("scores") is None

    @pytest.mark.parametrize("costs", [{}, {"costs": None}], ids=["kept", "deleted"])
    def test_a_setting_may_be_edited_to_another_of_the_space(
        self, searched: Searched, allocation: Path, tmp_path: Path, costs: dict[str, None]
    ) -> None:
        edit = {"setting": "w4a4g1", **costs}
        self.edit(allocation, lambda content: content["layers"][1].update(edit))
        weights = searched.request.space.weights
        assert weights is not None
        applied = apply(allocation, weights, "digits", tmp_path / "again")
        again = igq.load(applied.path).allocation
        assert again["blocks.0.attn.qkv"].num_groups == 1
        assert applied.edited == ("blocks.0.attn.qkv",)

    @pytest.mark.parametrize(
        ("change", "error", "reason"),
        [
            (
                lambda c: c["layers"][1].update(setting="w4a4g3"),
                ArtifactError,
                "a setting that its space offers, but gives it w4a4g3",
            ),
            (
                lambda c: c["layers"][1].update(setting="w5a4g2"),
                ArtifactError,
                "a setting that its space offers, but gives it w5a4g2",
            ),
            (lambda c: c["layers"].pop(), ArtifactError, "must name each layer of the model"),
            (lambda c: c.update(layers="all"), ArtifactError, "could not be read as an allocation"),
            (lambda c: c.update(model=None), ArtifactError, "could not be read as an allocation"),
            (lambda c: c.update(schema=2), ArtifactError, "could not be read as an allocation"),
            (lambda c: c.update(space=None), ArtifactError, "must note a search space"),
            (lambda c: c.update(calibration=None), ArtifactError, "how calibration images were"),
            (lambda c: c["model"].update(weights="0"), StudyError, "must be those that were"),
            (lambda c: c["calibration"].update(seed=1), DataError, "calibrated on, whose finger"),
        ],
        ids=lambda value: None if callable(value) or isinstance(value, type) else value[:20],
    )
    def test_what_would_be_another_model_is_refused(
        self,
        searched: Searched,
        allocation: Path,
        tmp_path: Path,
        change: Callable[[dict[str, Any]], object],
        error: type[Exception],
        reason: str,
    ) -> None:
        self.edit(allocation, change)
        weights = searched.request.space.weights
        assert weights is not None
        with pytest.raises(error, match=reason):
            apply(allocation, weights, "digits", tmp_path / "again")
        assert not (tmp_path / "again").exists()


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
        monkeypatch.setattr("pipeline.commands.artifacts.evaluate.open_source", lambda *_: source)
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
