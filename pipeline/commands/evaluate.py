"""Evaluation of an exported model on images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igq import ArtifactError, Score, layers, load
from igq.evaluation import BATCH_SIZE
from igq.quantized import accelerate
from igq.vit import architecture, remake
from pipeline.data import Fingerprint, Preprocessing, Stream, open_source
from pipeline.evaluation.execution import execution
from pipeline.evaluation.scoring import Contest
from pipeline.preparation.models import load_model
from pipeline.preparation.study import check_weights
from pipeline.study.definition import space_of
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


def evaluate_artifact(
    path: str | Path,
    images: str,
    weights: str | Path | None = None,
    display: Display | None = None,
    engine: Engine = Engine.AUTO,
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
    if "preprocessing" not in artifact.notes:
        raise ArtifactError(
            f"{path} must have been written by igq export: it notes no preprocessing."
        )
    preprocessing = Preprocessing(**artifact.notes["preprocessing"])
    space = space_of(artifact.notes)
    model, key = (None, "") if weights is None else load_model(space, Path(weights))
    if model is not None:
        check_weights(key, artifact.notes["model"])
    source = open_source(images, preprocessing)
    listed = layers(remake(architecture(artifact.model)))
    quantized = accelerate(artifact.model, execution(engine, listed, source.size, "cpu"))
    seen = Fingerprint()
    blocks = seen.of(Stream(source, range(source.size)).blocks(BATCH_SIZE))
    progress = shown.step(f"evaluating {source.size:,} images")
    scores = Contest([lambda: quantized], model).score(blocks, source.size, progress)
    top1 = None if scores.reference is None else scores.reference.top1
    return Evaluated(scores.models[0], source.size, seen.text, top1, artifact.notes)
