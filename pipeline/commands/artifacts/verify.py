"""Verification of an exported model: its files, and its noted scores measured again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igq import ArtifactError, Score, evaluate
from igq.formats import Verified, load, verify
from pipeline.commands.artifacts.noted import NotedScore, score_noted, space_noted
from pipeline.data import ImageSource, draw, open_source
from pipeline.data.preprocessing import preprocessing_noted
from pipeline.errors import DataError
from pipeline.preparation.models import load_model
from pipeline.preparation.purposes import CALIBRATION, SEARCH, VALIDATION
from pipeline.preparation.study import check_weights
from pipeline.study.progress import Display, SilentDisplay
from search_spaces import SearchSpace

KL_SHARE = 0.02
"""The share by which a mean KL may differ: rounding is chaotic, and sums depend on processors."""
TOP1_SHARE = 0.003
"""The share of images whose answer may differ; one image may in any case."""


@dataclass(frozen=True, eq=False)
class Verification:
    """The checks that an artifact has passed, and its score measured again, if that was asked."""

    path: Path
    files: Verified
    noted: NotedScore | None = None
    score: Score | None = None


def verify_artifact(
    path: str | Path,
    images: str | None = None,
    weights: str | Path | None = None,
    display: Display | None = None,
) -> Verification:
    """Check an artifact's files and values, and with `images` that its scores come out again.

    `images` is the source that the study drew its images from; the same ones are drawn. With
    `weights`, the full-precision model's, the KL is compared too, and not top-1 alone.

    Raises:
        ArtifactError: there is no artifact, it is damaged, notes no scores, or others come out.
        DataError: the images cannot be read, or are not those that were measured on.
        StudyError: the weights are others than those that were searched.
        WeightsError: the weights do not fit.

    >>> import pipeline
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> checked = pipeline.verify_artifact(exported.path, images="digits")
    >>> checked.files.sealed, checked.score.top1 == checked.noted.top1
    (True, True)
    """
    files, shown = verify(path), display or SilentDisplay()
    if images is None:
        return Verification(Path(path), files)
    artifact = load(path)
    noted = score_noted(path, artifact.notes)
    if noted is None:
        raise ArtifactError(
            f"{path} must note scores to evaluate it, but notes none: the search did not end with "
            "this model as its best."
        )
    space = space_noted(path, artifact.notes)
    source = open_source(images, preprocessing_noted(path, artifact.notes))
    wanted, seed = _wanted(path, artifact.notes, space, source, noted.images)
    drawn = draw(wanted, seed, shown.step("reading images"))[VALIDATION]
    if drawn.fingerprint != noted.fingerprint:
        raise DataError(
            f"`images` must be the {noted.images} that the scores were noted for, whose "
            f"fingerprint is {noted.fingerprint}, but {images} gives {drawn.fingerprint}."
        )
    reference = None
    if weights is not None:
        reference, key = load_model(space, Path(weights))
        check_weights(key, artifact.notes.get("model", ""))
    progress = shown.step("evaluating")
    score = evaluate(artifact.model, drawn.loaded(), reference, drawn.labels, progress=progress)
    check_score(path, noted, score)
    return Verification(Path(path), files, noted, score)


def check_score(path: str | Path, noted: NotedScore, score: Score) -> None:
    """Refuse a score that is not the noted one, as far as processors may differ.

    Raises:
        ArtifactError: it is not.
    """
    if score.kl is not None and abs(score.kl - noted.kl) > KL_SHARE * noted.kl:
        raise ArtifactError(
            f"{path} notes a KL of {noted.kl:.4f} on {noted.images} images, but has {score.kl:.4f}."
        )
    if score.top1 is None or noted.top1 is None:
        return
    if abs(score.top1 - noted.top1) > max(TOP1_SHARE, 1 / noted.images) + 1e-9:
        raise ArtifactError(
            f"{path} notes a top-1 of {noted.top1:.2%} on {noted.images} images, but has "
            f"{score.top1:.2%}."
        )


def _wanted(
    path: str | Path, notes: Any, space: SearchSpace, source: ImageSource, images: int
) -> tuple[dict[str, tuple[ImageSource, int, int]], int]:
    """Return what the study drew up to its last images, and its seed."""
    counts = {CALIBRATION: space.calibration_images, SEARCH: space.search_images}
    try:
        seed, noted = int(notes["calibration"]["seed"]), notes["images"]
        same = [p for p in counts if noted[p]["source"] == noted[VALIDATION]["source"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} must note how its images were drawn, but does not: export it again."
        ) from error
    before = {purpose: (source, counts[purpose], counts[purpose]) for purpose in same}
    return {**before, VALIDATION: (source, images, images)}, seed
