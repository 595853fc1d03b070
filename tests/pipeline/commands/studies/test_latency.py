"""A study whose budget is a latency: from the table that is measured to the exported model."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from igq import InvalidArgumentError, Unit
from igq.costs import Machine
from igq.runtime.library import library
from pipeline.cluster import InProcess
from pipeline.commands.artifacts.export import export
from pipeline.commands.machine.profile import Effort, profile
from pipeline.commands.studies.result import Result
from pipeline.commands.studies.search import run
from pipeline.files import read_json
from pipeline.preparation.costs.latency import write_profile
from pipeline.preparation.study import Study
from pipeline.study.progress import SilentDisplay
from pipeline.study.request import Request
from pipeline.tracking import InMemoryTracker
from search_spaces import parse_budget

pytestmark = pytest.mark.skipif(library() is None, reason="the runtime is not built")
LATENCY = {"budget": {"latency": "uniform:2", "table": "latency.json"}}


@dataclass
class Listening(SilentDisplay):
    """Keeps the warnings."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def asked(make_request: Callable[..., Request], tmp_path: Path) -> Request:
    request = make_request(space=LATENCY)
    table = tmp_path / "space" / "latency.json"
    profile(request.space, "here", table, SilentDisplay(), Effort(rounds=2))
    return request


def searched(request: Request, display: SilentDisplay) -> Result:
    return run(request, InProcess(), InMemoryTracker(), display)


@pytest.mark.slow
def test_a_search_keeps_a_latency_and_its_study_needs_no_table_besides(
    asked: Request, tmp_path: Path
) -> None:
    display = Listening()
    result = searched(asked, display)
    assert display.warnings == []
    costs = result.best.proposal.costs
    assert list(costs) == [Unit.NANOSECONDS, Unit.BOPS]
    assert result.best.proposal.cost <= result.study.budget
    written = read_json(asked.out / "result.json")["best"]
    assert written["latency_ns"] == costs[Unit.NANOSECONDS]
    assert written["bops"] == costs[Unit.BOPS]

    (tmp_path / "space" / "latency.json").unlink()
    assert Study.open(asked.out).budget == result.study.budget
    exported = export(asked.out, tmp_path / "model", budget=parse_budget("latency:uniform:2"))
    assert exported.trial.proposal.cost <= result.study.budget
    assert exported.notes["latency_ns"] == exported.trial.proposal.cost
    with pytest.raises(InvalidArgumentError, match="must be in the unit of the study's, latency"):
        export(asked.out, tmp_path / "other", budget=parse_budget("uniform:2"))


def test_a_table_of_another_machine_is_used_with_a_warning_that_names_both(
    asked: Request, tmp_path: Path
) -> None:
    table = tmp_path / "space" / "latency.json"
    made = profile(asked.space, "board", table, SilentDisplay(), Effort(rounds=2))
    write_profile(replace(made, machine=Machine("Cortex-A76", "portable", 4)), table)
    display = Listening()
    study = Study.create(asked, display)
    assert study.limits.table.unit is Unit.NANOSECONDS
    (said,) = display.warnings
    assert "board (Cortex-A76, portable, 4 threads)" in said
    assert str(made.machine).rsplit(",", 1)[0] in said


def test_where_the_table_lies_decides_nothing_and_its_numbers_do(
    asked: Request, tmp_path: Path
) -> None:
    study = Study.create(asked, SilentDisplay())
    budget = asked.space.budget
    moved = asked.space.model_copy(
        update={"budget": budget.model_copy(update={"table": tmp_path / "elsewhere.json"})}
    )
    assert replace(study.definition, space=moved).key == study.definition.key
    assert study.definition.profile is not None
    slower = replace(study.definition.profile, rest_ms=99.0)
    assert replace(study.definition, profile=slower).key != study.definition.key
