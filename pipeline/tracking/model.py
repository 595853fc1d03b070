"""An exported model in MLflow's format: code beside the artifact, nothing pickled."""

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array
from PIL import Image

from igq.formats.drafts import new_folder
from pipeline.classifier import open_classifier

IMAGE, PIXELS, ARTIFACT = "image", "pixels", "artifact"
"""Names that `pipeline.tracking.served` has too: it stands by itself in the model."""
PACKAGES = ("igq", "pipeline", "search_spaces")
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "timm", "safetensors", "numpy", "pandas", "pillow"),
    *("scipy", "jaxtyping", "pydantic", "pyyaml"),
)
"""The packages that an exported model needs to run: neither Ray nor Optuna."""


def write_mlflow_model(artifact: Path, out: Path) -> Path:
    """Write an artifact as an MLflow model to a new folder, whole or not at all.

    The model has this package's code within it, so that it loads where igq is not installed.

    Raises:
        ArtifactError: the artifact cannot be read or has no preprocessing; `out` exists already or
            cannot be written.
    """
    with new_folder(out) as draft:
        save(artifact, draft)
    return out


def save(artifact: Path, folder: Path, known: Model | None = None) -> None:
    """Write an artifact as an MLflow model into a folder that is new or empty.

    `known` says which logged model it is, if it is one.

    Raises:
        ArtifactError: the artifact cannot be read or has no preprocessing.
    """
    classifier = open_classifier(artifact)
    save_model(
        path=str(folder),
        mlflow_model=known,
        python_model=str(Path(__file__).with_name("served.py")),
        artifacts={ARTIFACT: str(artifact.absolute())},
        code_paths=[str(_folder(name)) for name in PACKAGES],
        pip_requirements=requirements(),
        signature=signature(),
        input_example=example(classifier.shape),
    )
    for compiled in list(folder.rglob("__pycache__")):  # of files that MLflow imports meanwhile
        shutil.rmtree(compiled)


def requirements() -> list[str]:
    """Return the packages that a model needs, in the versions that are here.

    >>> [line.partition("==")[0] for line in requirements()][:3]
    ['mlflow', 'torch', 'torchvision']
    """
    found = []
    for name in REQUIREMENTS:
        try:
            found.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            found.append(name)
    return found


def signature() -> ModelSignature:
    """Return what a row holds, an image's bytes or its pixels, and what the answer holds."""
    pixels = Array(Array(Array(DataType.double)))  # JSON's numbers
    given: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.binary, IMAGE, required=False),
        ColSpec(pixels, PIXELS, required=False),
    ]
    answered: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.long, "label"),
        ColSpec(DataType.string, "name"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    return ModelSignature(Schema(given), Schema(answered))


def example(shape: tuple[int, int, int]) -> pd.DataFrame:
    """Return a row with the bytes of a grey image of this shape."""
    file = BytesIO()
    Image.linear_gradient("L").resize((shape[2], shape[1])).save(file, "PNG")
    return pd.DataFrame({IMAGE: [file.getvalue()]})


def _folder(package: str) -> Path:
    found = find_spec(package)
    assert found is not None  # this file is in one of them
    assert found.submodule_search_locations is not None
    return Path(next(iter(found.submodule_search_locations)))
