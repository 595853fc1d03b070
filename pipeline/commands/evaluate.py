"""Evaluation of an exported model on images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igq import Score, evaluate, layers, load
from igq.evaluation import accuracy, log_probabilities
from igq.progress import part
from igq.quantized import accelerate
from igq.vit import architecture, remake
from pipeline.commands.noted import preprocessing_noted, score_noted, space_noted
from pipeline.data import load_all, open_source
from pipeline.data.classes import read_classes
from pipeline.evaluation.chance import near_chance
from pipeline.evaluation.execution import execution
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

    With `weights`, the full-precision model's, the score has the KL to its predictions.

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
    loaded = load_all(source, shown.step("reading images"))
    progress = shown.step("evaluating")
    parts = 1 if model is None else 2
    reference = None
    if model is not None:
        reference = log_probabilities(model, loaded.values, progress=part(progress, 0, parts))
    listed = layers(remake(architecture(artifact.model)))
    chosen = execution(engine, listed, len(loaded), "cpu")
    quantized = accelerate(artifact.model, chosen)
    rest = part(progress, parts - 1, parts)
    score = evaluate(quantized, loaded.values, reference, loaded.labels, progress=rest)
    top1 = None
    if reference is not None and loaded.labels is not None:
        top1 = accuracy(reference, loaded.labels)
    suspect = score.top1 if model is None else top1
    if warning := near_chance(suspect, len(loaded), preprocessing.num_classes):
        shown.warn(warning)
    return Evaluated(score, len(loaded), loaded.fingerprint, top1, artifact.notes)
