"""The saved view of a study's trials, as MLflow's pages read it."""

import json

from pipeline.tracking.views import address, view

PARAMS = ["groups_by_depth.1_first", "groups_by_kind.fc1", "groups_by_kind.qkv", "origin"]


def test_a_view_has_the_study_s_trials_by_kl_and_the_columns_that_tell() -> None:
    state = json.loads(view("0abc", PARAMS))
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = '0abc'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`kl`", True)
    columns = ["metrics.`kl`", "metrics.`bops`", "params.`origin`"]
    assert state["selectedColumns"][:3] == columns
    assert {f"params.`{name}`" for name in PARAMS} <= set(state["selectedColumns"])
    assert state["columnOrder"][1:4] == columns


def test_plots_have_the_parameters_of_trials_and_none_that_they_lack() -> None:
    depth, kind = json.loads(view("0abc", PARAMS))["compareRunCharts"]
    assert depth["selectedParams"] == ["groups_by_depth.1_first"]
    assert kind["selectedParams"] == ["groups_by_kind.fc1", "groups_by_kind.qkv"]
    assert depth["selectedMetrics"] == kind["selectedMetrics"] == ["kl"]
    assert [plot["selectedParams"] for plot in json.loads(view("0abc", PARAMS[1:3]))[
        "compareRunCharts"]] == [PARAMS[1:3]]  # fmt: skip


def test_a_view_fits_into_a_tag_of_an_experiment() -> None:
    many = [f"groups_by_kind.reduction_{number}" for number in range(12)]
    assert len(view("0" * 32, PARAMS + many)) < 5000


def test_the_address_of_plots_is_that_of_the_table_in_another_mode() -> None:
    table = address("http://here", "1", "0abc")
    assert address("http://here", "1", "0abc", plots=True) == f"{table}&compareRunsMode=CHART"
