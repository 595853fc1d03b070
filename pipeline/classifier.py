"""An exported model that takes image files and answers with classes and probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq import UnsupportedModelError, deploy, load
from pipeline.data.classes import names_of
from pipeline.data.pixels import naming, read_image
from pipeline.data.preprocessing import Preprocessing, preprocessing_noted


@dataclass(frozen=True)
class Guess:
    """A class of the model, and how probable it is for an image.

    >>> Guess(1, "goldfish", 0.75).name
    'goldfish'
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model on the CPU with its preprocessing and the names of its classes."""

    model: nn.Module
    preprocessing: Preprocessing
    names: Sequence[str]
    deployed: bool
    """Whether the layers are the runtime's; else the model fake-quantizes, and is slower."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The channels, height and width of an image that the model takes."""
        channels, height, width = self.preprocessing.config["input_size"]
        return channels, height, width

    def read(
        self, file: Path | BytesIO, place: object = None
    ) -> Float[Tensor, "channels height width"]:
        """Return an image file as the model's input; `place` names it in errors.

        Raises:
            DataError: it cannot be read.
        """
        transform = self.preprocessing.transform()
        with naming(file if place is None else place):
            return transform(read_image(file))

    @torch.inference_mode()
    def probabilities(
        self, images: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images classes"]:
        """Return the probability of each class, the model's softmax."""
        made: Tensor = self.model(images).softmax(-1)
        return made

    def guesses(self, probabilities: Float[Tensor, " classes"], top: int) -> tuple[Guess, ...]:
        """Return the most probable classes, the best first."""
        values, labels = probabilities.topk(min(top, len(probabilities)))
        pairs = zip(labels.tolist(), values.tolist(), strict=True)
        return tuple(Guess(label, self.names[label], value) for label, value in pairs)


def open_classifier(artifact: str | Path) -> Classifier:
    """Load an artifact that `igq export` wrote, its layers deployed on igq's runtime.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or it notes no preprocessing.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> classifier = open_classifier(exported.path)
    >>> classifier.shape, classifier.names[:3]
    ((1, 8, 8), ['0', '1', '2'])
    """
    loaded = load(artifact)
    preprocessing = preprocessing_noted(artifact, loaded.notes)
    known = names_of(preprocessing.num_classes, preprocessing.classes)
    names = loaded.notes.get("classes") or known
    try:
        model, deployed = deploy(loaded.model), True
    except UnsupportedModelError:
        model, deployed = loaded.model, False
    return Classifier(model, preprocessing, names, deployed)
