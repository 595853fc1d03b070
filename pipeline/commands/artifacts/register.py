"""Registration of an exported model in MLflow, beside the champion that its name has there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from igq import ArtifactError, Unit, load
from igq.evaluation import BATCH_SIZE
from pipeline.data.preprocessing import Preprocessing, preprocessing_noted
from pipeline.data.stream import MEMORY
from pipeline.evaluation.scoring import Contest
from pipeline.evaluation.validation import BEST, load_validation
from pipeline.intervals import Interval, interval
from pipeline.preparation.purposes import VALIDATION
from pipeline.preparation.study import Study
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.seals import read_definition
from pipeline.study.trials import Origin
from pipeline.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    Champion,
    Entry,
    Registry,
    Scores,
    open_registry,
)
from pipeline.tracking.uris import tracked_at

OWN = (BEST, Origin.UNIFORM, Origin.ILP, Origin.FISHER)
"""Contenders of a validation whose numbers are those of the study's own trials."""
FIRST = "the first of its name"


@dataclass(frozen=True)
class Registered:
    """A version of a name in MLflow's registry, and why it has its alias.

    >>> Registered("vit", 2, "champion", "KL lower by 0.1", "sqlite:///mlflow.db").uri
    'models:/vit/2'
    """

    name: str
    version: int
    alias: str
    """`champion` or `challenger`; empty for one that was there already."""
    reason: str
    tracking: str
    """The URI of the store."""

    @property
    def uri(self) -> str:
        """The URI that MLflow loads it by."""
        return f"models:/{self.name}/{self.version}"


def check_registry(
    study: str | Path, name: str, trial: int = 0, tracking: str | None = None
) -> Registry:
    """Refuse a store or a name that a study's model cannot be registered in, before any work.

    Raises:
        StudyError: there is no study.
        TrackingError: the store cannot be reached or written, or does not have the study, or
            MLflow takes no such name.

    >>> check_registry("studies/demo", "a/b")
    Traceback (most recent call last):
    pipeline.errors.TrackingError: `register` must be a name without `/`, `:` and quotes, but ...
    """
    key = str(read_definition(Path(study)).get("key", ""))
    uri = (tracking or tracked_at(Path(study))).partition("/#/")[0]
    return open_registry(uri, name, key, trial)


def register(
    study: str | Path,
    artifact: str | Path,
    name: str,
    *,
    tracking: str | None = None,
    weights: str | Path | None = None,
    display: Display | None = None,
) -> Registered:
    """Register an artifact of a study as the next version of a name in MLflow.

    It becomes the champion where there is none, or where it is clearly better on the study's
    validation images, in pairs; else the challenger. KL decides, or top-1 where the champion
    quantizes other weights. What is not known of either model is measured.

    Args:
        study: the study's folder.
        artifact: a folder that `export` wrote, in the format `native`.
        name: the name of the registered model.
        tracking: the store that the study was tracked in, where the study does not note it.
        weights: the study's weights, where the file was moved.
        display: shows the progress.

    Raises:
        ArtifactError: there is no artifact, or it is not this study's.
        DataError: images are to be measured on, but are not what they were.
        StudyError: there is no study.
        TrackingError: see `check_registry`.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> pipeline.register("studies/demo", exported.path, "a/b")
    Traceback (most recent call last):
    pipeline.errors.TrackingError: `register` must be a name without `/`, `:` and quotes, but ...
    """
    opened = Study.open(Path(study), Path(weights) if weights else None)
    model, notes = _read(artifact, opened)
    trial = int(notes["trial"])
    registry = check_registry(study, name, trial, tracking)
    if (version := registry.known) is not None:
        return Registered(name, version, "", "this trial is registered already", registry.uri)
    shown = display or SilentDisplay()
    scores = _noted(opened, trial) or _measured(opened, model, shown)
    with registry.champion() as champion:
        alias, reason = CHAMPION, FIRST
        if champion is not None:
            alias, reason = judge(
                scores, _beside(champion, scores, opened, shown), champion.version
            )
    version = registry.add(_entry(opened, Path(artifact), notes, scores, reason), alias)
    return Registered(name, version, alias, reason, registry.uri)


def judge(own: Scores, champion: Scores | None, version: int) -> tuple[str, str]:
    """Return the alias of a model that is compared with the champion, and the reason in words.

    >>> one = Scores("images", "weights", (0.10, 0.11, 0.12), None)
    >>> judge(one, Scores("images", "weights", (0.20, 0.22, 0.21), None), 3)
    ('champion', 'KL -0.1000 [-0.1248, -0.0752] against version 3 on 3 images: clearly better')
    """
    if champion is None:
        return CHALLENGER, f"version {version} takes other inputs"
    if own.weights == champion.weights:
        word, apart = "KL", _apart(own.kls, champion.kls)
    elif own.correct is not None and champion.correct is not None:
        word, apart = "top-1 error", _apart(champion.correct, own.correct)
    else:
        reason = f"version {version} quantizes other weights, and the images have no labels"
        return CHALLENGER, reason
    better = apart.high < 0
    said = "clearly better" if better else "not clearly better"
    reach = f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"
    reason = f"{word} {reach} against version {version} on {len(own.kls)} images: {said}"
    return CHAMPION if better else CHALLENGER, reason


def _apart(one: Sequence[float | bool], other: Sequence[float | bool]) -> Interval:
    return interval([float(a) - float(b) for a, b in zip(one, other, strict=True)])


def _read(artifact: str | Path, study: Study) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return an artifact's model and notes.

    Raises:
        ArtifactError: it is not of this study.
    """
    loaded = load(artifact)
    notes = loaded.notes
    if notes.get("study") != study.definition.key or type(notes.get("trial")) is not int:
        raise ArtifactError(
            f"`artifact` must be exported from {study.folder.path}, whose key is "
            f"{study.definition.key}, but {artifact} notes the study {notes.get('study')}."
        )
    return loaded.model, notes


def _noted(study: Study, trial: int) -> Scores | None:
    """Return the scores of a trial that the search measured at its end; None where it did not."""
    if not study.folder.validation.exists():
        return None
    for measured in load_validation(study.folder.validation).measured:
        if measured.name in OWN and measured.number == trial:
            images = study.definition.images[VALIDATION]
            return Scores(images, study.definition.model, measured.kls, measured.correct)
    return None


def _measured(study: Study, model: nn.Module, display: Display) -> Scores:
    """Measure a model on the study's validation images, which are read for it."""
    images = study.drawn(VALIDATION, display)
    progress = display.step(f"measuring on {len(images):,} images")
    blocks = images.blocks(BATCH_SIZE, MEMORY)
    score = Contest([lambda: model], study.model).score(blocks, len(images), progress).models[0]
    assert score.kls is not None  # there was a reference
    correct = None if score.correct is None else tuple(score.correct.tolist())
    return Scores(images.fingerprint, study.definition.model, tuple(score.kls.tolist()), correct)


def _beside(champion: Champion, own: Scores, study: Study, display: Display) -> Scores | None:
    """Return the champion's scores on the images of `own`; None where it takes other inputs."""
    known = champion.scores
    if known is not None and (known.images, known.weights) == (own.images, own.weights):
        return known
    loaded = load(champion.artifact)
    noted = preprocessing_noted(champion.artifact, loaded.notes)
    if _as_written(noted) != _as_written(study.preprocessing):
        return None
    measured = _measured(study, loaded.model, display)
    return replace(measured, weights=str(loaded.notes.get("model")))


def _as_written(preprocessing: Preprocessing) -> str:
    """Return how images become inputs, as JSON has it, which knows no tuples."""
    return json.dumps(preprocessing.config, sort_keys=True, default=str)


def _entry(
    study: Study, artifact: Path, notes: Mapping[str, Any], scores: Scores, reason: str
) -> Entry:
    trial, bops = int(notes["trial"]), float(notes["bops"])
    metrics = {"validation_kl": scores.kl, "bops": bops}
    if scores.correct is not None:
        metrics["validation_top1"] = sum(scores.correct) / len(scores.correct)
    if notes.get("size") is not None:
        name, size = Unit.BYTES.metric(notes["size"])
        metrics[name] = size
    return Entry(
        artifact,
        scores,
        {
            "igq.study": study.definition.key,
            "igq.trial": str(trial),
            "igq.images": scores.images,
            "igq.weights": scores.weights,
            "igq.reason": reason,
        },
        metrics,
        f"Trial {trial} of the study {study.definition.key}: KL {scores.kl:.4f} on "
        f"{len(scores.kls)} images, {Unit.BOPS.words(bops)}. {reason[0].upper()}{reason[1:]}.",
    )
