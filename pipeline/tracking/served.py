"""The code of an exported model in MLflow's format, which MLflow copies and runs by itself.

Each row of the input is an image: `image`, the bytes of a file, or `pixels`, the model's input as
`preprocessing.json` says, (channels, height, width).
"""

from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from pipeline.classifier import Classifier, open_classifier
from pipeline.errors import DataError

ARTIFACT = "artifact"
"""The name of the folder that `igq export` wrote among the model's artifacts."""
IMAGE, PIXELS = "image", "pixels"
BATCH = 8
"""Images that are classified at once (our choice)."""


class ServedModel(PythonModel):
    """Answers with the most probable class of each image, and every class's probability."""

    def load_context(self, context: Any) -> None:
        self._classifier = open_classifier(context.artifacts[ARTIFACT])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return `label`, `name`, `probability` and `probabilities` of each row.

        Raises:
            MlflowException: a row has no image, one that cannot be read, or one of another shape.
        """
        known = self._classifier
        rows = model_input.to_dict("records")
        try:
            inputs = [_input(known, row, number) for number, row in enumerate(rows)]
        except DataError as error:  # a server repeats messages of MLflow's own errors alone
            raise MlflowException.invalid_parameter_value(str(error)) from error
        parts = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
        found = torch.cat([known.probabilities(torch.stack(part)) for part in parts])
        best = [known.guesses(row, 1)[0] for row in found]
        columns = {
            "label": [guess.label for guess in best],
            "name": [guess.name for guess in best],
            "probability": [guess.probability for guess in best],
            "probabilities": found.tolist(),
        }
        return pd.DataFrame(columns)


def _input(known: Classifier, row: dict[str, Any], number: int) -> torch.Tensor:
    """Return a row as the model's input.

    Raises:
        DataError: it has none.
    """
    if isinstance(content := row.get(IMAGE), bytes):
        return known.read(BytesIO(content), f"the image of row {number}")
    pixels = row.get(PIXELS)
    if not isinstance(pixels, list | np.ndarray):
        raise DataError(f"a row must have `{IMAGE}` or `{PIXELS}`, but row {number} has neither.")
    try:
        values = torch.from_numpy(np.array(_plain(pixels), np.float32))
    except ValueError as error:
        raise DataError(f"`{PIXELS}` must be numbers, but row {number}'s are not.") from error
    if tuple(values.shape) != known.shape or not values.isfinite().all():
        raise DataError(
            f"`{PIXELS}` must be finite and have shape {list(known.shape)}, but row {number}'s "
            f"have {list(values.shape)}."
        )
    return values


def _plain(values: Any) -> Any:
    """Return arrays of arrays, as MLflow makes them, as lists."""
    return [_plain(value) for value in values] if isinstance(values, np.ndarray) else values


set_model(ServedModel())
