"""Record the names that MLflow shows: `python -m tests.golden.make_mlflow_names`, in the root.

People sort, filter and plot by these names, and their notebooks ask for them. `mlflow_names.json`
lists the parameters, metrics, tags and artifacts of the golden study `groups`: of its own run, and
of a trial that saw every image.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

import pipeline
from tests.golden.make_study import run_study, write_json

NAMES = Path(__file__).resolve().parent / "mlflow_names.json"
EXPERIMENT = "igq"


def store(folder: Path) -> str:
    """Return the URI of an MLflow store in a folder."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def names_in(uri: str) -> dict[str, dict[str, list[str]]]:
    """List the names in an MLflow store that holds one study."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (study,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    trials = [run for run in runs if run is not study]
    complete = [run for run in trials if run.data.tags["igq.state"] == "complete"]
    chosen = {"study": study, "complete trial": complete[0]}
    return {name: _names_of(run, client) for name, run in chosen.items()}


def _names_of(run: Run, client: MlflowClient) -> dict[str, list[str]]:
    return {
        "params": sorted(run.data.params),
        "metrics": sorted(run.data.metrics),
        "tags": sorted(run.data.tags),
        "artifacts": sorted(_artifacts(client, run.info.run_id)),
    }


def _artifacts(client: MlflowClient, run: str, within: str | None = None) -> Iterator[str]:
    for file in client.list_artifacts(run, within):
        if file.is_dir:
            yield from _artifacts(client, run, file.path)
        else:
            yield file.path


def main() -> None:
    """Run the study again, and record the names."""
    with tempfile.TemporaryDirectory() as temporary:
        uri = store(Path(temporary))
        run_study("groups", Path(temporary) / "groups", pipeline.MlflowTracker(uri))
        write_json(NAMES, names_in(uri))


if __name__ == "__main__":
    main()
