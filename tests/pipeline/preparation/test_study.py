"""A study is created from a request, and opened from its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from igq import Scheme
from igq.quantized import EAGER, Execution
from pipeline.cluster import InProcess
from pipeline.commands.studies.search import run
from pipeline.errors import ClusterError, DataError, StudyError
from pipeline.preparation.purposes import CALIBRATION, FINAL, SEARCH, VALIDATION
from pipeline.preparation.study import Study
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker

Make = Callable[..., Request]


class TestCreate:
    def test_everything_is_resolved_and_nothing_written(
        self, make_request: Make, display: Display, model: nn.Module
    ) -> None:
        request = make_request()
        study = Study.create(request, display)
        assert study.space is request.space
        assert study.scheme.inputs is Scheme.BEST.inputs
        counts = {purpose: len(images) for purpose, images in study.images.items()}
        assert counts == {CALIBRATION: 2, SEARCH: 8, VALIDATION: 6, FINAL: 4}
        assert study.limits.budget == study.budget > study.limits.table.minimum
        assert [la.name for la in study.layers if la.grouped] == list(study.limits.names)
        assert not request.out.exists()

    def test_a_front_has_no_final_images(self, make_request: Make, display: Display) -> None:
        assert len(Study.create(make_request(front=True), display).images[FINAL]) == 0

    def test_a_check_that_fails_ends_it_before_images_are_read(
        self, make_request: Make, display: Display, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise ClusterError("no answer")

        monkeypatch.setattr("pipeline.preparation.study.draw_shared", None)
        with pytest.raises(ClusterError, match="no answer"):
            Study.create(make_request(), display, fail)

    def test_the_engine_follows_from_the_trials_of_the_space(
        self, make_request: Make, display: Display, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One trial of a space whose own trials are just enough to compile."""
        compiled, request = Execution(compiled=True), make_request(trials=1)
        listed = Study.create(request, display).layers
        products = sum(layer.tokens * layer.channels * layer.outputs for layer in listed)
        enough = products * request.space.search_images * request.space.trials
        monkeypatch.setattr("pipeline.evaluation.execution.fastest", lambda device: compiled)
        monkeypatch.setattr("pipeline.evaluation.execution.WORTH_COMPILING", enough)
        assert Study.create(request, display).definition.execution == compiled
        monkeypatch.setattr("pipeline.evaluation.execution.WORTH_COMPILING", enough + 1)
        longer = make_request(trials=1000)
        assert Study.create(longer, display).definition.execution == EAGER

    def test_fewer_images_than_asked_are_told(self, make_request: Make) -> None:
        told: list[str] = []

        class Telling(SilentDisplay):
            def say(self, text: str) -> None:
                told.append(text)

        Study.create(make_request(space={"validation_images": 1785}), Telling())
        assert told == [
            "digits has 787 of the 1785 validation images that the space asks for.",
            "digits has 0 of the 4 final images that the space asks for; there is no final round.",
        ]

    def test_images_must_be_named(self, make_request: Make, display: Display) -> None:
        with pytest.raises(DataError, match="`images` must be given"):
            Study.create(make_request(space={"images": None}), display)


class TestOpen:
    @pytest.fixture
    def request_run(self, make_request: Make, display: Display) -> Request:
        request = make_request(trials=4)
        run(request, InProcess(), InMemoryTracker(), display)
        return request

    @pytest.mark.slow
    def test_it_is_the_study_that_was_created(self, request_run: Request, display: Display) -> None:
        opened = Study.open(request_run.out)
        written = json.loads((request_run.out / "study.json").read_text())
        assert opened.definition.key == written["key"]
        assert opened.images == {}
        assert len(opened.trials()) == 4
        assert opened.final() is not None
        assert opened.calibration.candidates_file.exists()

    @pytest.mark.slow
    def test_other_weights_are_refused(
        self, request_run: Request, write_space: Callable[..., Path], tmp_path: Path
    ) -> None:
        other = write_space(tmp_path / "other", seed=1).with_name("weights.safetensors")
        with pytest.raises(StudyError, match="`weights` must be those that were searched"):
            Study.open(request_run.out, other)

    @pytest.mark.slow
    def test_weights_may_have_been_moved(self, request_run: Request, tmp_path: Path) -> None:
        assert request_run.space.weights is not None
        moved = request_run.space.weights.rename(tmp_path / "moved.safetensors")
        assert len(Study.open(request_run.out, moved).trials()) == 4

    def test_a_folder_without_a_study_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"must hold study\.json"):
            Study.open(tmp_path)
