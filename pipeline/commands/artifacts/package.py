"""An exported model in MLflow's format, for `mlflow models serve` and `mlflow.pyfunc`."""

from pathlib import Path


def package(artifact: str | Path, out: str | Path) -> Path:
    """Write an exported model as an MLflow model to a new folder, and return the folder.

    It takes images as bytes of files or as pixels, and needs neither Ray nor Optuna to run.

    Raises:
        ArtifactError: the artifact cannot be read or notes no preprocessing; `out` exists already
            or cannot be written.

    >>> import pipeline
    >>> pipeline.package("nowhere", "models/nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an artifact: ...
    """
    from pipeline.tracking.model import write_mlflow_model  # MLflow takes seconds to load

    return write_mlflow_model(Path(artifact), Path(out))
