"""The paths that a user gives, checked before anything that takes seconds to load.

Nothing here needs torch. The parts that read these paths refuse them alike.
"""

import os
from pathlib import Path

from igq.errors import ArtifactError, WeightsError
from pipeline.errors import DataError

DIGITS = "digits"
"""The source of scikit-learn's digits."""
LABELS = (".csv", ".json")
"""The endings of files of labels."""
STREAMS = {"wds": "WebDataset", "hfids": "Hugging Face's streams", "tfds": "TensorFlow Datasets"}
"""Prefix of a name -> datasets that timm reads in their own order only."""


def check_new(out: Path) -> None:
    """Refuse a path to write that is there.

    Raises:
        ArtifactError: it is.

    >>> check_new(Path("nowhere"))
    """
    if os.path.lexists(out):
        raise ArtifactError(f"`out` must not exist yet, but {out} does.")


def check_weights_file(path: Path | None) -> None:
    """Refuse weights that are not there; None stands for none of the user's own.

    Raises:
        WeightsError: there is no such file or folder.

    >>> check_weights_file(Path("none.pth"))
    Traceback (most recent call last):
    igq.errors.WeightsError: none.pth could not be read as weights: there is no such file.
    """
    if path is not None and not path.exists():
        raise WeightsError(f"{path} could not be read as weights: there is no such file.")


def check_artifact(path: Path) -> None:
    """Refuse the folder of an exported model that is not there.

    Raises:
        ArtifactError: there is no such folder.

    >>> check_artifact(Path("nowhere"))
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an artifact: there is no such folder.
    """
    if not path.is_dir():
        reason = "it is no folder" if path.exists() else "there is no such folder"
        raise ArtifactError(f"{path} could not be read as an artifact: {reason}.")


def check_source(name: str | None) -> None:
    """Refuse a source of images that is none; None stands for another's.

    Raises:
        DataError: it is neither a folder nor a dataset by name, or can only be read as a stream.

    >>> check_source("digits")
    """
    if name is None or name == DIGITS or (name and is_folder(name)) or labels_file(name):
        return
    dataset, colon, _ = name.partition(":")
    if not (colon and "/" in dataset):
        raise DataError(
            "`images` must be a folder, a CSV or JSON file of labels, `digits`, or NAME:ROOT as "
            f"timm.data.create_dataset takes them (torch/cifar10:/data), but got {name!r}, which "
            "is none."
        )
    if (stream := STREAMS.get(dataset.partition("/")[0])) is not None:
        raise DataError(
            f"`images` must be readable in any order, as they are drawn at random, but got {name}: "
            f"timm reads {stream} as a stream. Unpack it into a folder of class folders; data sets "
            "of Hugging Face that are on this machine are read as hfds/PATH:CACHE."
        )


def labels_file(name: str) -> tuple[Path, Path] | None:
    """Return the file of labels that a source names, and the folder of its images; None if none.

    It is `labels.csv` with images beside it, or `labels.csv:FOLDER`.

    >>> labels_file("nowhere.csv") is None
    True
    """
    for file, root in ((name, ""), name.rpartition(":")[::2]):
        path = Path(file)
        if path.suffix.lower() in LABELS and not is_folder(file) and os.path.lexists(path):
            return path, Path(root) if root else path.parent
    return None


def is_folder(name: str) -> bool:
    """Return whether a name is that of a folder; one that no folder can have is not.

    >>> is_folder("."), is_folder("x" * 9_999)
    (True, False)
    """
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False
