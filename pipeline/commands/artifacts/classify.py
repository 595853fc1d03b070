"""Classification of image files with an exported model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.classifier import Guess, open_classifier
from pipeline.data.folders import list_images
from pipeline.errors import DataError

BATCH = 8
"""Images that are read and classified at once (our choice)."""


@dataclass(frozen=True)
class Classified:
    """An image file and its most probable classes."""

    file: Path
    guesses: tuple[Guess, ...]


def classify(
    artifact: str | Path, images: Sequence[str | Path], top: int = 5
) -> Iterator[Classified]:
    """Yield the `top` most probable classes of each image, in order; folders hold images.

    Raises:
        ArtifactError: there is no artifact, it is damaged, or it notes no preprocessing.
        DataError: an image is not there or cannot be read, or a folder holds none.

    >>> import pipeline
    >>> from PIL import Image
    >>> exported = pipeline.export("studies/demo", "artifacts/demo")
    >>> Image.new("L", (8, 8)).save("black.png")
    >>> (found,) = pipeline.classify(exported.path, ["black.png"], top=2)
    >>> found.file.name, len(found.guesses)
    ('black.png', 2)
    """
    files = image_files(images)
    classifier = open_classifier(artifact)
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        inputs = torch.stack([classifier.read(file) for file in batch])
        for file, row in zip(batch, classifier.probabilities(inputs), strict=True):
            yield Classified(file, classifier.guesses(row, top))


def image_files(given: Sequence[str | Path]) -> list[Path]:
    """Return files, and the images in folders, in order.

    Raises:
        DataError: there is no such file, or no image in a folder.

    >>> image_files(["nowhere.png"])
    Traceback (most recent call last):
    pipeline.errors.DataError: an image must be a file or a folder, but nowhere.png is not there.
    """
    files: list[Path] = []
    for path in map(Path, given):
        if not (path.is_file() or path.is_dir()):
            raise DataError(f"an image must be a file or a folder, but {path} is not there.")
        found = list_images(path) if path.is_dir() else None
        if found is not None and not found.files:
            said = " ".join(found.passed_over)
            raise DataError(f"a folder must hold images, but {path} has none. {said}".rstrip())
        files += [path] if found is None else map(Path, found.files)
    return files
