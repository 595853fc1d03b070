"""Models in MLflow's registry: linked, loadable without the search, and champion only if better."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from torch import nn

import pipeline
from igq import ArtifactError, InvalidArgumentError
from pipeline.cli.artifacts import export as export_command
from pipeline.commands.artifacts.register import check_registry, judge, register
from pipeline.errors import TrackingError
from pipeline.study.progress import SilentDisplay
from pipeline.tracking import sqlite_uri
from pipeline.tracking.registry import Scores
from tests.artifacts import digits_artifact

OWN = Scores("images", "weights", (0.1, 0.2, 0.3), (True, True, True))
LESS = "KL -0.2000 [-0.2000, -0.2000] against version 4 on 3 images: clearly better"

# In a process of its own: what this one has imported would be taken for the model's code.
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("ray", "optuna", "sklearn")))
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@champion")
pixels = np.full((1, 8, 8), 0.5, np.float32)
print(len(model.predict(pd.DataFrame({"pixels": [pixels]}))["probabilities"][0]))
"""


def scores(
    *kls: float, weights: str = "weights", correct: tuple[bool, ...] | None = None
) -> Scores:
    return Scores("images", weights, kls, correct)


@pytest.mark.parametrize(
    ("champion", "alias", "reason"),
    [
        (scores(0.3, 0.4, 0.5), "champion", LESS),
        (scores(0.1, 0.2, 0.3), "challenger", "not clearly better"),
        (scores(0.0, 0.1, 0.2), "challenger", "KL +0.1000"),
        (scores(0.1, 0.9, 0.3), "challenger", "not clearly better"),
        (scores(9.0, 9.0, 9.0, weights="other"), "challenger", "the images have no labels"),
        (
            scores(9.0, 9.0, 9.0, weights="other", correct=(False,) * 3),
            "champion",
            "top-1 error -1.0000",
        ),
        (None, "challenger", "takes other inputs"),
    ],
)
def test_only_a_clearly_better_model_becomes_the_champion(
    champion: Scores | None, alias: str, reason: str
) -> None:
    found, said = judge(OWN, champion, 4)
    assert found == alias
    assert reason in said


def test_without_labels_models_of_other_weights_are_not_compared() -> None:
    other = scores(9.0, 9.0, 9.0, weights="other", correct=(True,) * 3)
    assert judge(replace(OWN, correct=None), other, 1)[0] == "challenger"


@pytest.mark.slow
def test_a_model_is_registered_once_linked_and_compared(
    recorded_study: Path, tmp_path: Path
) -> None:
    result = pipeline.open(recorded_study)
    worst = max((t for t in result.trials if t.state == "complete"), key=lambda t: t.kl or 0.0)
    pipeline.export(recorded_study, tmp_path / "worst", trial=worst.number)
    pipeline.export(recorded_study, tmp_path / "best")

    first = register(recorded_study, tmp_path / "worst", "tiny")
    assert (first.version, first.alias, first.reason) == (1, "champion", "the first of its name")
    second = register(recorded_study, tmp_path / "best", "tiny")
    assert second.version == 2
    assert f"against version 1 on {result.validation.images} images" in second.reason
    assert (second.alias == "champion") == ("not clearly" not in second.reason)
    again = register(recorded_study, tmp_path / "best", "tiny")
    assert (again.version, again.alias) == (2, "")

    uri = sqlite_uri(recorded_study)
    client = MlflowClient(uri)
    version = client.get_model_version("tiny", "2")
    run = client.get_run(version.run_id)
    assert run.data.tags["igq.study"] == result.study.definition.key
    assert version.tags["igq.trial"] == str(result.best.number)
    assert version.aliases == [second.alias]
    logged = client.get_logged_model(version.tags["igq.model"])
    assert {m.key: m.value for m in logged.metrics}["validation_kl"] == pytest.approx(
        result.comparisons[0].kl.mean, rel=1e-6
    )
    assert (logged.source_run_id, logged.status) == (version.run_id, "READY")
    assert logged.model_id in [m.model_id for m in run.outputs.model_outputs]
    alone = [sys.executable, "-c", ALONE, uri]
    told = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["10"]


@pytest.mark.slow
def test_the_champion_of_another_study_is_measured_on_this_study_s_images(
    recorded_study: Path, tmp_path: Path, write_space: Callable[..., Path]
) -> None:
    uri = sqlite_uri(recorded_study)
    space = write_space(tmp_path / "space", validation_images=60)
    study = tmp_path / "other"
    fast = {"rivals": False, "figures": False, "seed": 1, "trials": 4}
    pipeline.search(space, study, tracking=uri, display=SilentDisplay(), **fast)  # type: ignore[arg-type]
    for folder in (recorded_study, study):
        made = pipeline.export(folder, tmp_path / folder.name / "artifact").path
        registered = register(folder, made, "both")
    assert registered.version == 2
    assert "against version 1 on 60 images" in registered.reason
    with check_registry(study, "both").champion() as champion:
        assert champion is not None
    place = MlflowClient(uri).get_model_version_download_uri("both", "2")
    kept = json.loads(Path(unquote(urlsplit(place).path), "scores.json").read_text())
    assert kept["images"] == pipeline.open(study).study.definition.images["validation"]
    assert len(kept["kls"]) == 60


@pytest.mark.slow
class TestRefusals:
    @pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a'b"])
    def test_a_name_that_mlflow_does_not_take(self, recorded_study: Path, name: str) -> None:
        with pytest.raises(TrackingError, match="must be a name without"):
            check_registry(recorded_study, name)

    def test_a_store_without_the_study(self, recorded_study: Path, tmp_path: Path) -> None:
        uri = sqlite_uri(tmp_path)
        with pytest.raises(TrackingError, match="does not have the study"):
            check_registry(recorded_study, "tiny", tracking=uri)

    def test_an_artifact_of_another_study(
        self, recorded_study: Path, model: nn.Module, tmp_path: Path
    ) -> None:
        made = digits_artifact(tmp_path / "artifact", model)
        with pytest.raises(ArtifactError, match="must be exported from"):
            register(recorded_study, made, "tiny")

    def test_a_format_that_is_not_native(self, recorded_study: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="must have native in it for --register"):
            export_command(recorded_study, tmp_path / "x", format=["onnx"], register="tiny")
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ('"kls": [', '"kls": [NaN, ', "is no number of JSON"),
            ('"kls": [', '"kls": [0.1, ', "images have"),
            ('"kls"', '"losses"', "KeyError"),
            ("}", "", "must be JSON"),
        ],
    )
    def test_scores_of_a_champion_that_are_damaged(
        self, recorded_study: Path, tmp_path: Path, old: str, new: str, reason: str
    ) -> None:
        made = pipeline.export(recorded_study, tmp_path / "artifact").path
        register(recorded_study, made, name := f"edited {reason}")
        place = MlflowClient(sqlite_uri(recorded_study)).get_model_version_download_uri(name, "1")
        written = Path(unquote(urlsplit(place).path), "scores.json")
        written.write_text(written.read_text().replace(old, new))
        with (
            pytest.raises(TrackingError, match=f"are damaged: .*{reason}"),
            check_registry(recorded_study, name).champion(),
        ):
            pass
