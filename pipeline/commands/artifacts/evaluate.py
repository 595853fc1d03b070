"""Evaluation of an exported model on images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igq import Score, layers, load
from igq.evaluation import BATCH_SIZE
from igq.quantized import accelerate
from igq.vit import architecture, remake
from pipeline.commands.artifacts.noted import score_noted, space_noted
from pipeline.data import Fingerprint, Stream, open_source
from pipeline.data.classes import read_classes
from pipeline.data.preprocessing import preprocessing_noted
from pipeline.evaluation.chance import near_chance
from pipeline.evaluation.execution import execution
from pipeline.evaluation.scoring import Contest
from pipeline.preparation.models import load_model
from pipeline.preparation.study import check_weights
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Engine


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The score of an exported model on images, and the notes of its export."""

    score: Score
    images: int
    fingerprint: str
    reference_top1: float | None
    notes: Mapping[str, Any]

    def json(self) -> dict[str, Any]:
        """Return the score, and the one that was noted at the end of the search, as plain data."""
        noted = self.notes.get("scores") or {}
        return {
            "images": self.images,
            "fingerprint": self.fingerprint,
            "kl": self.score.kl,
            "top1": self.score.top1,
            "reference_top1": self.reference_top1,
            "noted": noted.get("validation"),
        }


def evaluate_artifact(
    path: str | Path,
    images: str,
    weights: str | Path | None = None,
    display: Display | None = None,
    engine: Engine = Engine.AUTO,
    classes: str | None = None,
    checkpoint_key: str | None = None,
) -> Evaluated:
    """Score an exported model on all images of a source.

    With `weights`, the full-precision model's, the score has the KL to its predictions. Images are
    read as they are needed, once.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or no study was exported to it.
        DataError: the images cannot be found or read.
        StudyError: the weights are others than those that were searched.
        WeightsError: the weights do not fit.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> pipeline.evaluate_artifact(exported.path, "digits").images
    797
    >>> pipeline.evaluate_artifact("nowhere", "digits")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an artifact: ...
    """
    shown = display or SilentDisplay()
    artifact = load(path)
    preprocessing = preprocessing_noted(path, artifact.notes)
    if classes is not None:
        preprocessing = preprocessing.with_classes(read_classes(classes))
    space = space_noted(path, artifact.notes)
    score_noted(path, artifact.notes)  # it is shown beside the score
    model, key = (
        (None, "")
        if weights is None
        else load_model(space, Path(weights), checkpoint_key, shown.say)
    )
    if model is not None:
        check_weights(key, artifact.notes.get("model", ""))
    source = open_source(images, preprocessing)
    for note in source.notes:
        shown.say(f"{source.name}: {note}")
    listed = layers(remake(architecture(artifact.model)))
    quantized = accelerate(artifact.model, execution(engine, listed, source.size, "cpu"))
    seen = Fingerprint()
    blocks = seen.of(Stream(source, range(source.size)).blocks(BATCH_SIZE))
    progress = shown.step(f"evaluating {source.size:,} images")
    scores = Contest([lambda: quantized], model).score(blocks, source.size, progress)
    score = scores.models[0]
    top1 = None if scores.reference is None else scores.reference.top1
    of = (score.top1, "the model") if model is None else (top1, "full precision")
    if warning := near_chance(of[0], source.size, preprocessing.num_classes, of[1]):
        shown.warn(warning)
    return Evaluated(score, source.size, seen.text, top1, artifact.notes)
