"""A saved view of a study's trials in MLflow: useful columns, and plots that are filled.

MLflow keeps a view as a tag of the experiment, in JSON, and opens it by its key in an address.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

TAG = "mlflow.sharedViewState."
"""Prefix of the tag that holds a view; the rest of its name is the id of the study's run."""
TRAINING = "workflowType=machine_learning"
"""The part of an address that has MLflow show pages of training, not of chats."""
BY_DEPTH, BY_KIND = "groups_by_depth.", "groups_by_kind."
PLOTS = {BY_DEPTH: "KL by groups in each third of the depth", BY_KIND: "KL by groups of each kind"}
RUNS = 1000
"""Trials that a plot shows; MLflow's own default is 10."""
WIDTH = 190
"""Pixels in which the name of a parameter is whole."""


def view(run: str, params: Sequence[str]) -> str:
    """Return the view of a study's trials that have such parameters, as MLflow keeps it.

    >>> json.loads(view("0abc", ["origin"]))["orderByKey"]
    'metrics.`kl`'
    """
    named = [name for start in PLOTS for name in params if name.startswith(start)]
    columns = ["metrics.`kl`", "metrics.`bops`", "params.`origin`"]
    columns += [f"params.`{name}`" for name in named]
    plots = [_plot(start, [n for n in named if n.startswith(start)]) for start in PLOTS]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run}'",
        "orderByKey": columns[0],
        "orderByAsc": True,
        "selectedColumns": [*columns, "tags.`igq.reason`", "tags.`igq.node`"],
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": dict.fromkeys(columns[3:], WIDTH),
        "compareRunCharts": [plot for plot in plots if plot["selectedParams"]],
        "compareRunSections": [_SECTION],
        "runsHiddenMode": "SHOW_ALL",
    }
    return json.dumps(state, separators=(",", ":"))


def address(base: str, experiment: str, run: str, plots: bool = False) -> str:
    """Return the address of a view, as a table or as plots.

    >>> address("http://here", "1", "0abc")
    'http://here/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=0abc'
    """
    mode = "&compareRunsMode=CHART" if plots else ""
    at = f"{base}/#/experiments/{experiment}/runs?{TRAINING}"
    return f"{at}&viewStateShareKey={quote(run)}{mode}"


_SECTION = {
    "uuid": "igq",
    "name": "Allocations",
    "display": True,
    "columns": 1,
    "isReordered": False,
    "deleted": False,
    "isGenerated": False,
}


def _plot(start: str, params: Sequence[str]) -> Mapping[str, Any]:
    """Return parallel coordinates of parameters, coloured by KL."""
    return {
        "uuid": start,
        "type": "PARALLEL",
        "displayName": PLOTS[start],
        "metricSectionId": _SECTION["uuid"],
        "selectedParams": params,
        "selectedMetrics": ["kl"],
        "showAllRuns": False,
        "runsCountToCompare": RUNS,
        "deleted": False,
        "isGenerated": False,
    }
