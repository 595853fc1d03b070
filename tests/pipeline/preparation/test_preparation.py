"""The results that a study computes once: for the same weights, images and choices."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import igq
from igq import Allocation, InfeasibleBudgetError
from igq.quantized import EAGER, Execution, bounds
from igq.scheme import InputMethod
from pipeline.data import Images, Preprocessing, draw, open_source
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Here
from pipeline.preparation.costs.limits import limits_of
from pipeline.preparation.parts import phases
from pipeline.preparation.prepare import CHUNKS, TINY, Preparation, prepare
from pipeline.preparation.starts import RANDOM_TRIALS, baselines, front_baselines
from pipeline.preparation.study import Study
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.definition import Definition, fingerprint
from pipeline.study.folder import Folder
from pipeline.study.progress import Display
from pipeline.study.request import Request
from pipeline.study.trials import Origin

Prepare = Callable[..., Preparation]
COMPUTES = ("observe", "fit", "correct", "sensitivity")


def drawn(model: nn.Module, seed: int = 0) -> dict[str, Images]:
    source = open_source("digits", Preprocessing.of(model))
    return draw({"calibration": (source, 2, 2), "search": (source, 11, 11)}, seed)


def study_of(
    request: Request, folder: Folder, model: nn.Module, images: Mapping[str, Images]
) -> Study:
    """A study of a model, without reading anything."""
    prints = {purpose: those.fingerprint for purpose, those in images.items()}
    definition = Definition(
        request.space, "", fingerprint(model), prints, {}, 0, request.sampler, EAGER
    )
    turned = igq.rotated(model, request.space.scheme.rotation)
    listed = igq.layers(turned)
    limits = limits_of(request.space, listed, sum(p.numel() for p in model.parameters()))
    return Study(folder, definition, turned, listed, limits, images)


@dataclass(frozen=True)
class Several(Here):
    """This process, which says that it is several workers."""

    workers: int = 2

    def count(self) -> int:
        return self.workers


@pytest.fixture
def images(model: nn.Module) -> dict[str, Images]:
    return drawn(model)


@pytest.fixture
def run(
    make_request: Callable[..., Request],
    model: nn.Module,
    images: dict[str, Images],
    display: Display,
    tmp_path: Path,
) -> Prepare:
    """Prepare the tiny study; `changes` replace the model or images."""

    def call(space: dict[str, Any] | None = None, **changes: Any) -> Preparation:
        given: dict[str, Any] = {"model": model, **images} | changes
        its_model = given.pop("model")
        folder = Folder(tmp_path / "study")
        return prepare(study_of(make_request(space=space), folder, its_model, given), display)

    return call


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the computations that are not read from the cache, once for all parts."""
    notes: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(phases, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if notes[-1:] != [name]:
                notes.append(name)
            return original(*arguments, **more)

        return call

    for name in COMPUTES:
        monkeypatch.setattr(phases, name, noting(name))
    return notes


class TestCompilingAhead:
    """The compiler's cache is filled for several workers, once; nothing is compiled here."""

    @pytest.fixture
    def compilations(self, monkeypatch: pytest.MonkeyPatch) -> list[Execution]:
        """Note the execution of each model that is compiled ahead."""
        noted: list[Execution] = []

        class Noting:
            def __init__(self, task: Task, device: torch.device) -> None:
                noted.append(task.execution)

            def evaluate(self, allocation: Allocation) -> Iterator[None]:
                yield

        monkeypatch.setattr("pipeline.preparation.prepare.Objective", Noting)
        monkeypatch.setattr("igq.sensitivities.measured.accelerate", lambda model, *rest: model)
        return noted

    @pytest.fixture
    def ahead(
        self,
        make_request: Callable[..., Request],
        model: nn.Module,
        images: dict[str, Images],
        display: Display,
        tmp_path: Path,
    ) -> Callable[..., None]:
        """Return a function that prepares a study in a folder of its own, for so many workers."""

        def call(name: str, workers: int, execution: Execution) -> None:
            study = study_of(make_request(), Folder(tmp_path / name), model, images)
            definition = replace(study.definition, execution=execution)
            study = replace(study, definition=definition, shared=tmp_path / "shared")
            prepare(study, display, Several(workers=workers))

        return call

    def test_the_first_search_of_several_workers_compiles(
        self, ahead: Callable[..., None], compilations: list[Execution]
    ) -> None:
        compiled = Execution(compiled=True)
        ahead("first", 2, compiled)
        ahead("second", 2, compiled)
        assert compilations == [compiled]

    def test_one_worker_and_an_eager_model_compile_nothing(
        self, ahead: Callable[..., None], compilations: list[Execution]
    ) -> None:
        ahead("one", 1, Execution(compiled=True))
        ahead("eager", 2, EAGER)
        assert compilations == []


class TestCache:
    def test_the_first_run_computes_all(self, run: Prepare, computed: list[str]) -> None:
        run()
        assert computed == ["observe", "fit", "sensitivity"]

    def test_the_second_run_reads_all(self, run: Prepare, computed: list[str]) -> None:
        first = run()
        computed.clear()
        second = run()
        assert computed == []
        assert second.measured == first.measured

    def test_another_budget_starts_from_the_same_table(
        self, run: Prepare, computed: list[str]
    ) -> None:
        first = run()
        computed.clear()
        second = run(space={"budget": {"uniform": 4}})
        assert computed == []
        assert second.budget > first.budget
        assert second.measured == first.measured

    def test_other_weights_start_anew(
        self, run: Prepare, computed: list[str], other_model: nn.Module
    ) -> None:
        run()
        computed.clear()
        run(model=other_model)
        assert computed == ["observe", "fit", "sensitivity"]

    @pytest.mark.parametrize(
        ("purpose", "expected"),
        [("calibration", ["observe", "fit", "sensitivity"]), ("search", ["sensitivity"])],
    )
    def test_other_images_compute_what_follows_from_them(
        self,
        run: Prepare,
        computed: list[str],
        model: nn.Module,
        purpose: str,
        expected: list[str],
    ) -> None:
        run()
        computed.clear()
        run(**{purpose: drawn(model, seed=1)[purpose]})
        assert computed == expected

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"num_groups": [1, 2]}, ["observe", "fit", "sensitivity"]),
            ({"activation_bits": 8}, ["observe", "fit", "sensitivity"]),
            ({"sensitivity_images": 3}, ["sensitivity"]),
            ({"weight_bits": 8}, []),
        ],
        ids=["num_groups", "activation_bits", "sensitivity_images", "weight_bits"],
    )
    def test_another_space_computes_what_follows_from_it(
        self, run: Prepare, computed: list[str], change: dict[str, Any], expected: list[str]
    ) -> None:
        run()
        computed.clear()
        run(space=change)
        assert computed == expected

    @pytest.mark.slow
    def test_corrected_weights_are_computed_once_and_read_then(
        self, run: Prepare, computed: list[str], model: nn.Module
    ) -> None:
        first = run(space={"weight_method": "corrected"}).task
        assert computed == ["observe", "fit", "correct", "sensitivity"]
        computed.clear()
        second = run(space={"weight_method": "corrected", "budget": {"uniform": 4}}).task
        assert computed == []
        for name, weight in first.weights[4].items():
            assert torch.equal(weight.dequantize(), second.weights[4][name].dequantize())
        assert fingerprint(first.model) == fingerprint(second.model) != fingerprint(model)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"weight_bits": 8}, ["correct"]),
            ({"weight_method": "nearest"}, []),
            ({"softmax_method": "rows"}, ["observe", "fit", "correct", "sensitivity"]),
            ({"assignment": "nearest"}, ["observe", "fit", "correct", "sensitivity"]),
            ({"input_method": "channels"}, ["observe", "fit", "correct", "sensitivity"]),
            ({"rotation": "none"}, ["observe", "fit", "correct", "sensitivity"]),
        ],
        ids=[
            "weight_bits",
            "weight_method",
            "softmax_method",
            "assignment",
            "input_method",
            "rotation",
        ],
    )
    def test_other_weights_are_corrected_anew(
        self, run: Prepare, computed: list[str], change: dict[str, Any], expected: list[str]
    ) -> None:
        run(space={"weight_method": "corrected"})
        computed.clear()
        run(space={"weight_method": "corrected"} | change)
        assert computed == expected

    @pytest.mark.slow
    def test_where_bits_are_searched_weights_of_each_are_corrected_and_measured(
        self, run: Prepare, model: nn.Module
    ) -> None:
        space = {
            "weight_bits": [3, 4],
            "weight_method": "corrected",
            "budget": {"uniform": "w4a4g2"},
        }
        corrected, nearest = (
            run(space=space | change) for change in ({}, {"weight_method": "nearest"})
        )
        assert corrected.measured != nearest.measured
        assert fingerprint(corrected.task.model) == fingerprint(corrected.study.model)
        for bits in (3, 4):
            rounded, simple = (p.task.weights[bits] for p in (corrected, nearest))
            name = "blocks.0.mlp.fc1"
            assert rounded[name].bits == bits
            assert not torch.equal(rounded[name].dequantize(), simple[name].dequantize())

    @pytest.mark.parametrize("inputs", InputMethod)
    def test_cached_candidates_are_those_that_would_be_fitted(
        self,
        run: Prepare,
        model: nn.Module,
        images: dict[str, Images],
        inputs: InputMethod,
    ) -> None:
        run(space={"input_method": inputs.value})
        cached = run(space={"input_method": inputs.value}).task.candidates
        ranges = igq.observe(model, images["calibration"].values, igq.Scheme(inputs))
        fresh = igq.fit(ranges, (1, 2, 4), bits=4)
        old, new = bounds(cached), bounds(fresh)
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in new)
        layer = next(layer for layer in cached.layers if layer.name == "blocks.0.mlp.fc1")
        assert cached.scheme.inputs is inputs
        assert list(cached.quantizers[layer.name]) == [1, 2, 4]


class TestPreparation:
    def test_sensitivity_is_measured_on_the_first_of_the_search_images(
        self, run: Prepare, model: nn.Module, images: dict[str, Images]
    ) -> None:
        prepared = run()
        first = images["search"].values[:2]
        measured = igq.sensitivity(model, prepared.task.candidates, first)
        assert prepared.measured.sensitivity == measured

    def test_a_trial_reports_at_most_eight_times_and_sees_every_image(self, run: Prepare) -> None:
        task = run().task
        assert task.num_chunks <= CHUNKS
        assert sum(len(chunk) for chunk in task.images.split(task.chunk_size)) == 11

    def test_a_budget_that_nothing_meets_is_refused(self, run: Prepare, tmp_path: Path) -> None:
        with pytest.raises(InfeasibleBudgetError, match="cheapest possible"):
            run(space={"budget": {"bops": 10}})
        assert not (tmp_path / "study").exists()


class TestSensitivitiesOf:
    def test_they_are_the_geometric_means_of_both_tables(self, run: Prepare) -> None:
        prepared = run()
        uniform = igq.uniform(prepared.layers, 2)
        measured, predicted = prepared.measured.sensitivity, prepared.predicted
        assert predicted is not None
        expected = {
            (name, uniform[name]): max(row[uniform[name]], TINY) ** 0.5
            * max(predicted.sensitivity[name][uniform[name]], TINY) ** 0.5
            for name, row in measured.items()
        }
        assert prepared.sensitivities_of(uniform) == pytest.approx(expected)
        alone = replace(prepared, predicted=None).sensitivities_of(uniform)
        assert alone == pytest.approx(
            {(name, uniform[name]): max(row[uniform[name]], TINY) for name, row in measured.items()}
        )

    def test_layers_that_share_a_setting_count_once_each(self, run: Prepare) -> None:
        tied, free = run(space={"tied": "kind"}), run()
        uniform = igq.uniform(free.layers, 2)
        one, other = (sum(p.sensitivities_of(uniform).values()) for p in (tied, free))
        assert one == pytest.approx(other)


class TestBaselines:
    def test_are_the_starts_then_random_ones_and_within_the_budget(self, run: Prepare) -> None:
        prepared = run()
        given = baselines(prepared, trials=12, seed=0)
        expected = [Origin.UNIFORM, Origin.ILP, Origin.FISHER, *[Origin.RANDOM] * 3]
        assert [origin for origin, _ in given] == expected
        assert all(prepared.limits.fits(allocation) for _, allocation in given)

    def test_uniform_is_the_budget_s_own(self, run: Prepare) -> None:
        prepared = run()
        _, allocation = baselines(prepared, trials=12, seed=0)[0]
        assert allocation == igq.uniform(prepared.layers, 2)

    def test_ilp_is_the_least_sensitivity_within_the_budget(self, run: Prepare) -> None:
        prepared = run()
        _, allocation = baselines(prepared, trials=12, seed=0)[1]
        assert allocation == igq.allocate(prepared.measured.sensitivity, prepared.limits)

    def test_the_third_start_is_the_same_program_with_predicted_sensitivities(
        self, run: Prepare
    ) -> None:
        prepared = run()
        assert prepared.predicted is not None
        _, allocation = baselines(prepared, trials=12, seed=0)[2]
        assert allocation == igq.allocate(prepared.predicted.sensitivity, prepared.limits)

    @pytest.mark.parametrize(("trials", "drawn"), [(1, 0), (7, 1), (12, 3), (1000, RANDOM_TRIALS)])
    def test_random_ones_are_at_most_a_quarter_of_the_trials(
        self, run: Prepare, trials: int, drawn: int
    ) -> None:
        given = baselines(run(), trials, seed=0)
        assert [origin for origin, _ in given].count(Origin.RANDOM) == drawn

    @pytest.mark.slow
    def test_a_random_one_is_no_other_start(self, run: Prepare) -> None:
        prepared = run()
        for seed in range(20):
            uniform, _, _, *random = (a for _, a in baselines(prepared, 1000, seed))
            assert len({uniform, *random}) == 1 + len(random)

    def test_a_seed_decides_the_random_ones(self, run: Prepare) -> None:
        prepared = run()

        def random(seed: int) -> list[Allocation]:
            return [allocation for _, allocation in baselines(prepared, 12, seed)[3:]]

        assert random(0) == random(0)
        assert random(0) != random(1)


class TestFrontBaselines:
    @pytest.mark.parametrize("more", [0, 1])
    def test_the_programs_answer_for_every_uniform_cost_and_for_the_budget(
        self, run: Prepare, more: int
    ) -> None:
        prepared = run()
        limits = prepared.limits.with_budget(prepared.budget + more)
        prepared = replace(prepared, study=replace(prepared.study, limits=limits))
        given = front_baselines(prepared, BudgetSchedule.around(limits), trials=60)
        uniform = [allocation for origin, allocation in given if origin is Origin.UNIFORM]
        costs = {*map(limits.table.of, uniform), limits.budget}
        assert len(costs) == len(uniform) + more  # only a uniform allocation's budget is one
        assert prepared.predicted is not None
        for origin, table in (
            (Origin.ILP, prepared.measured),
            (Origin.FISHER, prepared.predicted),
        ):
            answers = [allocation for made, allocation in given if made is origin]
            expected = {igq.allocate(table.sensitivity, limits.with_budget(cost)) for cost in costs}
            assert len(answers) == len(costs)
            assert set(answers) == expected
