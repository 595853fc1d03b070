"""A search from beginning to end, without Ray and MLflow; interrupted, resumed and refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from filelock import FileLock
from PIL import Image

import igq
import search_spaces
from igq import IgqError, InfeasibleBudgetError, Observation, Unit
from igq.quantized import quantized_weights
from pipeline.cluster import InProcess, ProposalFeed
from pipeline.commands.artifacts.export import export
from pipeline.commands.studies.result import Result
from pipeline.commands.studies.search import run as search
from pipeline.errors import ClusterError, DataError, StudyError, TrackingError
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.preparation.study import Study
from pipeline.study.best import best
from pipeline.study.final import load_final
from pipeline.study.folder import Folder
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request, Sampler
from pipeline.study.seals import read_sealed
from pipeline.study.trials import Origin, Proposal, State, Trial
from pipeline.tracking import InMemoryTracker, StudyRun
from search_spaces import BopsBudget

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("searches")]

Make = Callable[..., Request]
Run = Callable[..., Result]
STARTS = (Origin.UNIFORM, Origin.ILP, Origin.FISHER)


@dataclass
class Interrupting:
    """A feed that is interrupted, as by Ctrl-C, while its `after`-th trial runs."""

    feed: ProposalFeed
    after: int

    @property
    def left(self) -> int:
        return self.feed.left

    def next(self) -> Proposal | None:
        return self.feed.next()

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        if self.after == 0:
            raise KeyboardInterrupt
        return self.feed.report(number, chunk, observation)

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        self.feed.finish(number, seconds, error, node)
        self.after -= 1


@dataclass(frozen=True)
class Interrupted(InProcess):
    """A cluster on which the driver is interrupted after so many trials."""

    after: int = 4

    def run(self, task: Task, feed: ProposalFeed) -> None:
        super().run(task, Interrupting(feed, self.after))


@dataclass(frozen=True)
class Unreachable(InProcess):
    """A cluster that does not answer."""

    def check(self) -> None:
        raise ClusterError("`cluster` must be the address of a running Ray cluster: no answer.")


class Refusing(InMemoryTracker):
    """A tracker that does not answer."""

    def start(self, study: StudyRun) -> None:
        raise TrackingError("`tracking` must be reachable: no answer.")


@pytest.fixture
def run(display: Display) -> Run:
    def call(request: Request, cluster: Any = None, tracker: Any = None) -> Result:
        return search(request, cluster or InProcess(), tracker or InMemoryTracker(), display)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a study but its lock; empty where there is no folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def timeless(trials: tuple[Trial, ...]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


class TestResult:
    @pytest.fixture(scope="class")
    @classmethod
    def space(
        cls, tmp_path_factory: pytest.TempPathFactory, write_space: Callable[..., Path]
    ) -> Path:
        return write_space(tmp_path_factory.mktemp("space"))

    @pytest.fixture(scope="class")
    @classmethod
    def tracker(cls) -> InMemoryTracker:
        return InMemoryTracker()

    @pytest.fixture(scope="class")
    @classmethod
    def result(
        cls, space: Path, tracker: InMemoryTracker, tmp_path_factory: pytest.TempPathFactory
    ) -> Result:
        request = Request(search_spaces.load(space), tmp_path_factory.mktemp("studies") / "tiny")
        return search(request, InProcess(), tracker, SilentDisplay())

    def test_has_as_many_trials_as_were_asked_for_baselines_first(self, result: Result) -> None:
        assert [trial.number for trial in result.trials] == list(range(12))
        expected = [*STARTS, *[Origin.RANDOM] * 3, *[Origin.SAMPLER] * 6]
        assert [trial.proposal.origin for trial in result.trials] == expected

    def test_baselines_saw_every_image(self, result: Result) -> None:
        assert [trial.state for trial in result.trials[:6]] == [State.COMPLETE] * 6
        assert {len(trial.observation) for trial in result.trials[:6]} == {8}

    def test_the_best_is_one_of_the_study_s_and_within_the_budget(self, result: Result) -> None:
        budget = json.loads(result.folder.result.read_text())["budget"]
        assert result.best in result.trials
        assert result.best.proposal.cost <= budget

    def test_the_best_is_compared_with_each_kind_of_baseline(self, result: Result) -> None:
        rows = {row.name: row for row in result.comparisons}
        assert list(rows) == ["best", "uniform", "ilp", "fisher", "random", "repaired"]
        assert rows["best"].number == result.best.number
        assert rows["uniform"].number == 0
        assert rows["best"].difference is None
        for name in ("uniform", "ilp", "fisher", "random", "repaired"):
            row = rows[name]
            assert row.difference is not None
            assert row.difference.mean == pytest.approx(rows["best"].kl.mean - row.kl.mean)
            assert row.top1 is not None
        for name in ("best", "uniform", "ilp", "fisher"):
            assert rows[name].search_kl == result.trials[rows[name].number or 0].kl

    def test_rivals_had_the_compute_of_the_search(self, result: Result) -> None:
        spent = {row.name: row.passes for row in result.comparisons}
        seen = sum(
            len(t.observation) for t in result.trials if t.proposal.origin is not Origin.RANDOM
        )
        assert spent["uniform"] == 0
        assert result.final is not None
        assert spent["best"] == spent["ilp"] + spent["fisher"] + seen + result.final.passes
        for rival in ("random", "repaired"):  # the last trial may go over by less than a trial
            assert 0 <= spent[rival] - spent["best"] < 8

    def test_the_repaired_ilp_is_no_worse_than_the_ilp_on_search_images(
        self, result: Result
    ) -> None:
        rows = {row.name: row for row in result.comparisons}
        assert rows["repaired"].search_kl <= rows["ilp"].search_kl

    def test_the_comparison_is_on_images_that_the_search_did_not_see(self, result: Result) -> None:
        assert result.validation is not None
        assert result.validation.images == 6
        prints = json.loads(result.folder.study.read_text())["images"]
        assert len(set(prints.values())) == 4

    def test_the_best_won_the_final_round_over_all_starts(self, result: Result) -> None:
        assert result.final is not None
        assert {len(kls) for kls in result.final.kls.values()} == {4}
        assert result.best.number == result.final.winner
        numbers = {trial.number for trial in result.trials}
        assert set(result.final.kls) <= numbers
        allocations = {t.proposal.allocation for t in result.trials if t.number in result.final.kls}
        assert allocations >= {
            t.proposal.allocation for t in result.trials if t.proposal.origin in STARTS
        }
        assert load_final(result.folder.final) == result.final

    def test_everything_lies_in_the_folder(self, result: Result) -> None:
        names = {name.split("_")[0] for name in contents(result.folder.path)}
        assert names == {
            "cache/candidates",
            "cache/harm",
            "cache/predicted",
            "figures/comparison.png",
            "figures/final.png",
            "figures/front.png",
            "figures/groups.png",
            "figures/search.png",
            "figures/sensitivities.csv",
            "figures/sensitivity.png",
            "figures/trials.csv",
            "figures/workers.png",
            "driver.json",
            "final.json",
            "journal.json",
            "journal.log",
            "report.html",
            "result.json",
            "study.json",
            "system.json",
            "tracking.json",
            "validation.json",
        }

    def test_the_tracker_has_every_trial_and_the_result(
        self, result: Result, tracker: InMemoryTracker
    ) -> None:
        assert tuple(tracker.trials.values()) == result.trials
        assert tracker.status == "FINISHED"
        assert tracker.results is not None
        metrics, tags, tables, files = tracker.results
        assert metrics["search_kl"] == result.best.kl
        assert result.final is not None
        assert metrics["final_kl"] == result.final.kl(result.best.number)
        assert tags["igq.best_trial"] == str(result.best.number)
        assert tables["result.json"] == read_sealed(result.folder.result)
        assert all(path.exists() for path in files)


class TestFront:
    @pytest.fixture
    def result(self, make_request: Make, run: Run) -> Result:
        return run(make_request(front=True, sampler=Sampler.SWAPS, trials=20))

    def test_trials_lie_on_both_sides_of_the_space_s_budget(self, result: Result) -> None:
        budget = json.loads(result.folder.result.read_text())["budget"]
        costs = [t.proposal.cost for t in result.trials if t.proposal.origin is Origin.SAMPLER]
        assert min(costs) < budget < max(costs)
        assert all(trial.state is State.COMPLETE for trial in result.trials)

    def test_the_front_falls_as_it_gets_dearer(self, result: Result) -> None:
        cheapest = min(trial.proposal.cost for trial in result.trials)
        assert result.front[0].proposal.cost == cheapest
        for cheap, dear in pairwise(result.front):
            assert cheap.proposal.cost < dear.proposal.cost
            assert (cheap.kl or 0) > (dear.kl or 0)

    def test_the_comparison_is_at_the_space_s_budget(self, result: Result) -> None:
        budget = json.loads(result.folder.result.read_text())["budget"]
        assert result.best == best(result.trials, budget)
        assert all(row.cost <= budget for row in result.comparisons)

    def test_it_resumes_as_it_was_and_not_as_another(self, make_request: Make, run: Run) -> None:
        request = make_request(front=True)
        first = run(request)
        assert run(replace(request, resume=True)).trials == first.trials
        with pytest.raises(StudyError, match=r"its front differs"):
            run(replace(request, front=False, resume=True))


class TestTied:
    def test_tied_layers_have_the_same_number_of_groups_in_every_trial(
        self, make_request: Make, run: Run
    ) -> None:
        result = run(make_request(space={"tied": "block"}, trials=6))
        for trial in result.trials:
            assert len(trial.proposal.allocation) == 5
            assert len(set(trial.proposal.allocation.values())) == 1
        again = run(make_request(space={"tied": "block"}, trials=6, resume=True))
        assert again.trials == result.trials


class TestMixed:
    """Bits are searched together with groups."""

    SPACE: ClassVar = {
        "weight_bits": [3, 4, 8],
        "activation_bits": [4, 6],
        "budget": {"uniform": "w4a4g2"},
    }

    @pytest.fixture
    def result(self, make_request: Make, run: Run) -> Result:
        return run(make_request(space=self.SPACE, trials=16))

    def test_every_layer_has_a_setting_of_what_it_has(self, result: Result) -> None:
        chosen = {name: str(choice) for name, choice in result.best.proposal.allocation.items()}
        patterns = {
            "patch_embed.proj": r"w\d",
            "blocks.0.attn.qkv": r"w\da\dg\d",
            "blocks.0.attn.q": r"a\d",
            "blocks.0.attn.softmax": r"a\dg\d",
            "head": r"w\da\d",
        }
        for name, pattern in patterns.items():
            assert re.fullmatch(pattern, chosen[name]), chosen
        assert chosen["blocks.0.attn.k"] == chosen["blocks.0.attn.q"]
        assert chosen["blocks.0.attn.v"] == chosen["blocks.0.attn.softmax"]

    def test_the_budget_is_the_cost_of_the_uniform_setting(self, result: Result) -> None:
        uniform = next(t for t in result.trials if t.proposal.origin is Origin.UNIFORM)
        assert str(uniform.proposal.allocation["blocks.0.mlp.fc1"]) == "w4a4g2"
        assert uniform.proposal.cost == json.loads(result.folder.result.read_text())["budget"]
        assert all(t.proposal.cost <= uniform.proposal.cost for t in result.trials)

    def test_the_uniform_setting_predicts_what_groups_alone_would(
        self, make_request: Make, run: Run, tmp_path: Path, result: Result
    ) -> None:
        plain = run(make_request(tmp_path / "plain", trials=4))
        first, second = (r.trials[0].observation.kls for r in (plain, result))
        assert first == pytest.approx(second, rel=1e-5)

    def test_it_is_resumed_and_exported_as_it_is(
        self, make_request: Make, run: Run, result: Result, tmp_path: Path
    ) -> None:
        again = run(make_request(space=self.SPACE, trials=16, resume=True))
        assert again.trials == result.trials
        exported = export(result.folder.path, tmp_path / "artifact")
        loaded = igq.load(exported.path)
        assert "w" in json.loads(result.folder.result.read_text())["best"]["allocation"]["head"]
        bits = {name: weight.bits for name, weight in quantized_weights(loaded.model).items()}
        chosen = result.best.proposal.allocation
        assert bits == {name: chosen[name].weight_bits for name in bits}

    @pytest.mark.parametrize("tied", ["block", "kind"])
    def test_settings_are_tied_too(
        self, make_request: Make, run: Run, tied: str, tmp_path: Path
    ) -> None:
        result = run(make_request(space=self.SPACE | {"tied": tied}, trials=6))
        assert len(result.trials) == 6
        notes = result.export(tmp_path / "artifact").notes
        assert notes["totals"]["bops"] == result.best.proposal.cost


class TestSize:
    """Bits of weights are searched, and the model may take no more than with 4-bit ones."""

    SPACE: ClassVar = TestMixed.SPACE | {"max_size": {"weight_bits": 4}}

    @pytest.fixture
    def result(self, make_request: Make, run: Run) -> Result:
        return run(make_request(space=self.SPACE, trials=16))

    def test_it_matters_and_every_trial_keeps_it_rivals_too(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        result = run(make_request(space=self.SPACE, trials=16, rivals=True))
        sizes = {t.proposal.origin: t.proposal.costs[Unit.BYTES] for t in reversed(result.trials)}
        most = sizes[Origin.UNIFORM]  # 4 bits everywhere
        assert all(0 < (t.proposal.costs[Unit.BYTES]) <= most for t in result.trials)
        assert all(t.proposal.cost <= result.trials[0].proposal.cost for t in result.trials)
        assert {"random", "repaired"} <= {row.name for row in result.comparisons}
        assert all(0 < (row.size or 0) <= most for row in result.comparisons)
        space = {**self.SPACE, "max_size": None}
        free = run(make_request(tmp_path / "free", space=space, trials=16))
        assert max(t.proposal.costs[Unit.BYTES] for t in free.trials) > most

    def test_what_is_written_says_it(self, result: Result) -> None:
        content = json.loads(result.folder.result.read_text())
        assert content["best"]["size"] == result.best.proposal.costs.get(Unit.BYTES)
        assert json.loads(result.folder.study.read_text())["space"]["max_size"] == {
            "weight_bits": 4
        }

    def test_the_export_keeps_it_whatever_the_budget(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        front = run(make_request(space=self.SPACE, trials=16, front=True))
        budgets = {"low": None, "high": BopsBudget(bops=1e12)}
        limit = Study.open(front.folder.path).limits.limits[1]
        for name, budget in budgets.items():
            exported = export(front.folder.path, tmp_path / name, budget=budget)
            weights = quantized_weights(igq.load(exported.path).model)
            codes = sum(-(-w.codes.numel() * w.bits // 8) for w in weights.values())
            assert limit.table.fixed + codes == exported.trial.proposal.costs.get(Unit.BYTES)
            assert limit.table.fixed + codes <= limit.most

    @pytest.mark.parametrize("bits", [4, [3, 4]])
    def test_a_size_that_nothing_has_is_refused_before_anything_is_written(
        self, make_request: Make, run: Run, tmp_path: Path, bits: Any
    ) -> None:
        budget = {"uniform": 2} if bits == 4 else {"uniform": "w4a4g2"}
        space = {"weight_bits": bits, "budget": budget, "max_size": "1 kB"}
        rule = r"^`max_size` must be at least .* [\d,]+ bytes, but got max_size=1,000 bytes\.$"
        with pytest.raises(InfeasibleBudgetError, match=rule):
            run(make_request(space=space))
        assert not (tmp_path / "study").exists()

    def test_where_weights_have_their_bits_it_is_kept_by_all_and_not_shown(
        self, make_request: Make, run: Run
    ) -> None:
        result = run(make_request(space={"max_size": {"weight_bits": 4}}, trials=4))
        assert {trial.proposal.costs.get(Unit.BYTES) for trial in result.trials} == {None}
        assert {row.size for row in result.comparisons} == {None}

    def test_a_resumed_study_has_the_size_that_it_began_with(
        self, make_request: Make, run: Run, result: Result
    ) -> None:
        again = run(make_request(space=self.SPACE, trials=16, resume=True))
        assert again.trials == result.trials
        with pytest.raises(StudyError, match=r"its space\.max_size.* differs"):
            run(make_request(space=TestMixed.SPACE, trials=16, resume=True))


class TestWithoutRivals:
    def test_the_study_s_own_random_trials_stand_for_random(
        self, make_request: Make, run: Run
    ) -> None:
        result = run(make_request())
        rows = {row.name: row for row in result.comparisons}
        assert list(rows) == ["best", "uniform", "ilp", "fisher", "random"]
        assert rows["random"].passes == 3 * 8


class TestSeeds:
    def test_the_same_seed_gives_the_same_result_to_the_letter(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        first, second = (run(make_request(tmp_path / name, rivals=True)) for name in ("a", "b"))
        assert read_sealed(first.folder.result) == read_sealed(second.folder.result)
        assert timeless(first.trials) == timeless(second.trials)

    def test_another_seed_gives_other_images_and_other_trials(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        results = [run(make_request(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
        drawn = [json.loads(result.folder.study.read_text())["images"] for result in results]
        assert not set(drawn[0].values()) & set(drawn[1].values())
        assert timeless(results[0].trials) != timeless(results[1].trials)


class TestWithoutFinalImages:
    def test_the_least_kl_on_search_images_is_best(self, make_request: Make, run: Run) -> None:
        result = run(make_request(space={"final_images": 0}))
        assert result.final is None
        assert not result.folder.final.exists()
        assert result.best.kl == min(t.kl for t in result.trials if t.state is State.COMPLETE)


class TestSamplers:
    @pytest.mark.parametrize("sampler", [Sampler.RANDOM, Sampler.PLAIN])
    def test_each_ends_with_the_trials_that_were_asked_for(
        self, make_request: Make, run: Run, sampler: Sampler
    ) -> None:
        result = run(make_request(sampler=sampler))
        assert len(result.trials) == 12
        over = [trial for trial in result.trials if trial.state is State.OVER_BUDGET]
        assert bool(over) == (sampler is Sampler.PLAIN)
        assert all(len(trial.observation) == 0 for trial in over)


class TestInterruption:
    @pytest.mark.parametrize("after", [0, 3, 8], ids="after {} trials".format)
    def test_a_resumed_search_loses_nothing_and_does_nothing_twice(
        self, make_request: Make, run: Run, tmp_path: Path, after: int
    ) -> None:
        whole = run(make_request(tmp_path / "whole"))
        request = make_request(tmp_path / "parts")
        tracker = InMemoryTracker()
        with pytest.raises(KeyboardInterrupt):
            run(request, Interrupted(after=after), tracker)
        assert tracker.status == "KILLED"
        assert len(tracker.trials) == after

        result = run(replace(request, resume=True), tracker=tracker)
        assert tracker.status == "FINISHED"
        assert timeless(result.trials[:after]) == timeless(whole.trials[:after])
        assert len(result.trials) == len({t.number for t in result.trials}) == 12
        assert tuple(tracker.trials[t.number] for t in result.trials) == result.trials
        allocations = [trial.proposal.allocation for trial in whole.trials[: after + 1]]
        assert {t.proposal.allocation for t in result.trials} >= set(allocations)
        origins = [trial.proposal.origin for trial in result.trials]
        counts = {origin: origins.count(origin) for origin in Origin}
        assert counts == {"uniform": 1, "ilp": 1, "fisher": 1, "random": 3, "sampler": 6}

    def test_it_may_be_interrupted_again(self, make_request: Make, run: Run) -> None:
        request = make_request()
        for i in range(3):
            with pytest.raises(KeyboardInterrupt):
                run(replace(request, resume=i > 0), Interrupted(after=2))
        result = run(replace(request, resume=True))
        assert len(result.trials) == 12

    def test_a_finished_study_can_be_asked_for_more_trials(
        self, make_request: Make, run: Run
    ) -> None:
        request = make_request(trials=8)
        first = run(request)
        more = run(replace(request, trials=10, resume=True))
        assert more.trials[:8] == first.trials
        assert len(more.trials) == 10

    def test_a_finished_study_resumed_as_it_is_comes_to_the_same_result(
        self, make_request: Make, run: Run
    ) -> None:
        request = make_request(rivals=True)
        first = run(request)
        written = first.folder.result.read_bytes()
        again = run(replace(request, resume=True), Interrupted(after=0))
        assert again.trials == first.trials
        assert again.folder.result.read_bytes() == written

    def test_an_interrupted_comparison_does_not_leave_the_tracker_waiting(
        self, make_request: Make, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr("pipeline.searching.result.measure", interrupted)
        tracker = InMemoryTracker()
        with pytest.raises(KeyboardInterrupt):
            run(make_request(), tracker=tracker)
        assert tracker.status == "KILLED"


class TestFailedTrials:
    def test_one_failed_trial_does_not_end_the_study(
        self, make_request: Make, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluate, calls = Objective.evaluate, iter(range(100))

        def failing(self: Objective, allocation: Any) -> Any:
            if next(calls) == 2:
                raise FloatingPointError("the KL of an image is not finite")
            return evaluate(self, allocation)

        monkeypatch.setattr(Objective, "evaluate", failing)
        result = run(make_request())
        states = [trial.state for trial in result.trials]
        assert states.index(State.FAILED) == 2
        assert states.count(State.FAILED) == 1
        assert result.trials[2].error == "FloatingPointError: the KL of an image is not finite"

    def test_where_every_trial_failed_the_reason_is_given(
        self, make_request: Make, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(self: Any, allocation: Any) -> Any:
            raise FloatingPointError("the KL of an image is not finite")

        monkeypatch.setattr("pipeline.evaluation.objective.Objective.evaluate", failing)
        tracker = InMemoryTracker()
        with pytest.raises(StudyError, match=r"no trial completed.*the KL of an image is not fini"):
            run(make_request(), tracker=tracker)
        assert tracker.status == "KILLED"


class TestRefusedResume:
    @pytest.mark.parametrize(
        ("change", "differs"),
        [
            ({"seed": 1}, "seed"),
            ({"sampler": Sampler.RANDOM}, "sampler"),
            ({"space": {"seed": 1}}, "model"),
            ({"space": {"weight_bits": 8}}, "space"),
            ({"space": {"search_images": 9}}, "space.search_images"),
            ({"space": {"final_images": 3}}, "space.final_images"),
            ({"space": {"softmax_method": "rows"}}, "space.softmax_method"),
        ],
        ids=["seed", "sampler", "weights", "bits", "search images", "final images", "softmax"],
    )
    def test_another_study_is_refused_with_what_differs_and_nothing_changes(
        self, make_request: Make, run: Run, change: dict[str, Any], differs: str
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(make_request(), Interrupted(after=1))
        request = make_request(resume=True, **change)
        before = contents(request.out)
        tracker = InMemoryTracker()
        with pytest.raises(StudyError, match=rf"^`resume` needs .* its .*{differs}.* --out "):
            run(request, tracker=tracker)
        assert contents(request.out) == before
        assert tracker.study is None

    def test_other_images_are_refused(self, make_request: Make, run: Run, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(make_request(), Interrupted(after=1))
        for i in range(20):
            (tmp_path / "images").mkdir(exist_ok=True)
            Image.new("L", (8, 8), i).save(tmp_path / "images" / f"{i}.png")
        before = contents(tmp_path / "study")
        with pytest.raises(StudyError, match=r"its images.calibration differs"):
            run(make_request(resume=True, images=str(tmp_path / "images")))
        assert contents(tmp_path / "study") == before

    def test_a_study_that_is_there_is_not_overwritten(self, make_request: Make, run: Run) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(make_request(), Interrupted(after=1))
        before = contents(make_request().out)
        with pytest.raises(StudyError, match=r"^`out` must not hold a study yet"):
            run(make_request())
        assert contents(make_request().out) == before


class TestOneDriver:
    def test_a_second_driver_is_refused(self, make_request: Make, run: Run) -> None:
        request = make_request()
        with pytest.raises(KeyboardInterrupt):
            run(request, Interrupted(after=1))
        before = contents(request.out)
        with FileLock(Folder(request.out).lock), pytest.raises(StudyError, match=r"one driver"):
            run(replace(request, resume=True))
        assert contents(request.out) == before

    def test_the_second_leaves_the_first_its_folder_before_there_is_a_study(
        self, make_request: Make, run: Run
    ) -> None:
        """The first still reads images: so far the folder has nothing but its lock."""
        request = make_request()
        request.out.mkdir()
        with FileLock(Folder(request.out).lock):
            for _ in range(2):
                with pytest.raises(StudyError, match=r"one driver"):
                    run(request)
        run(request)

    def test_a_lock_that_a_dead_driver_left_does_not_block(
        self, make_request: Make, run: Run
    ) -> None:
        request = make_request()
        request.out.mkdir()
        Folder(request.out).lock.touch()
        assert len(run(request).trials) == 12


class TestRefusals:
    REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
        ({"space": {"budget": {"bops": 10}}}, "cheapest possible allocation's .* BOPs"),
        ({"space": {"model": "no_such_model"}}, "no_such_model"),
        ({"images": "/no/such/folder"}, "^`images` must be"),
        ({"space": {"search_images": 5000}}, "must hold at least 5000 images for search"),
        ({"weights": Path("/no/such/file.safetensors")}, "could not be read as weights"),
    )

    @pytest.mark.parametrize(
        ("wrong", "message"), REFUSED, ids=["budget", "model", "images", "too few", "weights"]
    )
    def test_what_is_wrong_is_refused_before_any_folder_is_made(
        self,
        make_request: Make,
        run: Run,
        wrong: dict[str, Any],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def forbidden(*arguments: Any, **more: Any) -> None:
            raise AssertionError("nothing is made for a request that is refused")

        request = make_request(tmp_path / "new" / "folder" / "study", **wrong)
        monkeypatch.setattr(Path, "mkdir", forbidden)
        tracker = InMemoryTracker()
        with pytest.raises(IgqError, match=message):
            run(request, tracker=tracker)
        assert not (tmp_path / "new").exists()
        assert tracker.study is None

    def test_a_cluster_that_does_not_answer_leaves_nothing(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        with pytest.raises(ClusterError, match=r"no answer"):
            run(make_request(tmp_path / "new" / "study"), Unreachable())
        assert not (tmp_path / "new").exists()

    def test_nor_does_a_tracker(self, make_request: Make, run: Run, tmp_path: Path) -> None:
        """It is asked when all else is right, by the one driver that has the folder."""
        for out, left in (("new/folder/study", "new"), ("mine/study", "mine/study")):
            (tmp_path / "mine").mkdir(exist_ok=True)
            with pytest.raises(TrackingError, match=r"no answer"):
                run(make_request(tmp_path / out), tracker=Refusing())
            assert not (tmp_path / left).exists()
        assert (tmp_path / "mine").exists()

    def test_a_study_begun_while_images_were_read_is_not_overwritten(
        self, make_request: Make, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = make_request()

        class Slow(InProcess):
            """The other search starts and ends after the folder was found empty."""

            def check(self) -> None:
                run(replace(request, seed=1, trials=2))

        with pytest.raises(StudyError, match=r"^`out` must not hold a study yet"):
            run(request, Slow())
        assert json.loads(Folder(request.out).study.read_text())["seed"] == 1

    def test_what_was_in_the_folder_before_stays(
        self, make_request: Make, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "notes.txt").write_text("mine")
        with pytest.raises(DataError):
            run(make_request(images="/no/such/folder"))
        assert contents(tmp_path / "study") == {"notes.txt": b"mine"}


def test_the_journal_is_the_truth(make_request: Make, run: Run) -> None:
    """A resumed search starts from the journal of a killed driver."""
    request = make_request()
    with pytest.raises(KeyboardInterrupt):
        run(request, Interrupted(after=5))
    before = Study.open(request.out, request.weights).trials()
    assert len(before) == 5
    result = run(replace(request, resume=True))
    assert result.trials[:5] == before
