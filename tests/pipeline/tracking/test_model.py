"""The MLflow model predicts what the artifact does, by its own code, without Ray and Optuna."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image
from torch import nn

from igq import ArtifactError
from pipeline.classifier import open_classifier
from pipeline.commands.artifacts.package import package
from tests.artifacts import digits_artifact

# In a process of its own: what this one has imported would be taken for the model's code.
ALONE = """
import sys
sys.modules.update(dict.fromkeys(("ray", "optuna", "sklearn")))
import mlflow, pandas as pd, pipeline, igq
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.DataFrame({"image": [open(sys.argv[2], "rb").read()]})
found = model.predict(rows)
print(found["label"][0], float(found["probability"][0]), sep="\\n")
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, model: nn.Module) -> Path:
    return digits_artifact(tmp_path_factory.mktemp("artifacts") / "art", model)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Path:
    """The artifact as a model, whose files are looked at before any test imports one of them."""
    path = package(artifact, tmp_path_factory.mktemp("models") / "digits")
    assert not [file for file in path.rglob("*") if file.suffix in (".pkl", ".pyc")]
    return path


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
class TestPredictions:
    def test_bytes_and_pixels_of_an_image_give_the_artifact_s_answer(
        self, artifact: Path, packaged: Path
    ) -> None:
        known = open_classifier(artifact)
        images = torch.stack([known.read(BytesIO(png(seed))) for seed in range(10)])
        expected = known.probabilities(images)
        model = mlflow.pyfunc.load_model(str(packaged))
        by_bytes = model.predict(pd.DataFrame({"image": [png(seed) for seed in range(10)]}))
        by_pixels = model.predict(pd.DataFrame({"pixels": list(images.numpy())}))
        for found in (by_bytes, by_pixels):
            assert np.allclose(np.stack(found["probabilities"]), expected, atol=1e-6)
            assert found["label"].tolist() == expected.argmax(-1).tolist()
            assert found["name"].tolist() == [str(label) for label in found["label"]]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ({"image": [b"no image"]}, "the image of row 0 is not: cannot identify image file"),
            ({"pixels": [[[[1.0]]]]}, r"have shape \[1, 8, 8\], but row 0's have \[1, 1, 1\]"),
            ({"pixels": [np.full((1, 8, 8), np.nan)]}, "must be finite"),
            ({"image": [png(), None]}, "must have `image` or `pixels`, but row 1 has neither"),
        ],
    )
    def test_an_odd_row_is_refused_by_number(
        self, packaged: Path, rows: dict[str, object], message: str
    ) -> None:
        model = mlflow.pyfunc.load_model(str(packaged))
        with pytest.raises(MlflowException, match=message):
            model.predict(pd.DataFrame(rows))

    def test_a_process_without_ray_and_optuna_loads_it(
        self, artifact: Path, packaged: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "image.png").write_bytes(png())
        command = [sys.executable, "-c", ALONE, packaged, tmp_path / "image.png"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        known = open_classifier(artifact)
        (best,) = known.guesses(known.probabilities(known.read(BytesIO(png()))[None])[0], 1)
        label, probability = run.stdout.split()
        assert int(label) == best.label
        assert float(probability) == pytest.approx(best.probability, abs=1e-6)


@pytest.mark.slow
class TestFolder:
    def test_it_has_signature_example_requirements_and_code(self, packaged: Path) -> None:
        described = yaml.safe_load((packaged / "MLmodel").read_text())
        assert [part["name"] for part in yaml.safe_load(described["signature"]["inputs"])] == [
            "image",
            "pixels",
        ]
        assert described["saved_input_example_info"]["artifact_path"] == "input_example.json"
        needed = (packaged / "requirements.txt").read_text()
        assert "torch==" in needed
        assert not any(name in needed for name in ("ray", "optuna"))
        assert (packaged / "code" / "igq" / "__init__.py").is_file()

    def test_one_that_is_there_is_refused(self, artifact: Path, packaged: Path) -> None:
        with pytest.raises(ArtifactError, match="`path` must not exist yet"):
            package(artifact, packaged)


def test_without_an_artifact_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="could not be read as an artifact"):
        package(tmp_path / "nowhere", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
