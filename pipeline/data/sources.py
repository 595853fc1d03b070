"""Sources of images.

A *source* is a folder of class folders (`pipeline.data.classes` says what their names mean), a
folder of images without labels, a CSV or JSON file that labels single images
(`pipeline.data.labels`), `digits`, or `NAME:ROOT` for anything else that
`timm.data.create_dataset` takes, such as `torch/cifar10:/data`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import create_dataset
from torch import Tensor

from pipeline.data.classes import by_order, class_map, left_out, named
from pipeline.data.folders import list_images
from pipeline.data.labels import Labels, read_labels
from pipeline.data.pixels import has_alpha, naming, read_image
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import DataError
from pipeline.paths import DIGITS, check_source, is_folder, labels_file
from search_spaces.demo.digits import digits_split

PROBED = 16
"""Images of a folder that are looked at for transparency when it is opened (our choice)."""


class ImageSource:
    """Images that can be read by their place in a seeded order."""

    def __init__(self, name: str, read: Callable[[int], tuple[Tensor, int]], size: int) -> None:
        self.name, self.read, self.size = name, read, size
        self.labelled = True
        self.classes: Mapping[str, int] | None = None
        """Name of a class folder -> class, where folders are all classes in an order that was
        taken for the model's; None where names tell, or nothing does."""
        self.notes: tuple[str, ...] = ()
        """Facts about the source that the user should be told, a sentence each."""
        self.files: Sequence[tuple[str, int]] | None = None
        """The file and class (or -1) of each place, where each image is a file of its own."""


def open_source(name: str, preprocessing: Preprocessing) -> ImageSource:
    """Find a source of images.

    Raises:
        DataError: there is no such folder or dataset, or it is empty.
    """
    if name == DIGITS:
        return _digits(preprocessing)
    check_source(name)
    if (labels := labels_file(name)) is not None:
        return _labelled(name, read_labels(*labels), preprocessing)
    if is_folder(name):
        return _folder(name, preprocessing)
    dataset, _, root = name.partition(":")
    return _dataset(name, dataset, root, preprocessing)


def class_names(sources: Iterable[str]) -> list[str] | None:
    """Return the names of the classes of these sources, where all are known; else None.

    >>> class_names(["digits"])[:3], class_names(["imagenet/val"])
    (['0', '1', '2'], None)
    """
    return [str(digit) for digit in range(10)] if set(sources) == {DIGITS} else None


def _digits(preprocessing: Preprocessing) -> ImageSource:
    size = tuple(preprocessing.config["input_size"])
    if size != (1, 8, 8):
        raise DataError(
            "`digits` are for a model of 1 channel and 8 x 8 pixels, but the model takes "
            f"{size[0]} and {size[1]} x {size[2]}; use --images FOLDER."
        )
    rest = digits_split().rest
    images, labels = torch.from_numpy(rest.images), rest.labels.tolist()
    return ImageSource(DIGITS, lambda index: (images[index], labels[index]), len(images))


def _folder(name: str, preprocessing: Preprocessing) -> ImageSource:
    """Open the images in a folder, with labels where the names of class folders tell them."""
    listing = list_images(Path(name))
    if not listing.files:
        raise DataError(
            f"`images` must hold images that PIL reads, got {name}: Found 0 images. "
            f"{' '.join(listing.passed_over)}".rstrip()
        )
    classes = class_map(sorted(set(listing.folders) - {""}), preprocessing.labelling)
    labels = [None if classes is None else classes.get(f) for f in listing.folders]
    kept = [
        (file, -1 if label is None else label)
        for file, label in zip(listing.files, labels, strict=True)
        if classes is None or label is not None
    ]
    source = _of_files(name, kept, preprocessing)
    source.labelled = classes is not None
    source.classes = by_order(classes, preprocessing.labelling)
    said = left_out(listing.folders, classes, preprocessing.labelling)
    source.notes = (*listing.passed_over, *said, *_transparent(kept))
    return source


def _labelled(name: str, labels: Labels, preprocessing: Preprocessing) -> ImageSource:
    """Open the images that a file of labels lists."""
    if not labels.images:
        raise DataError(f"`images` must hold images, but {labels.file} lists none.")
    classes = labels.classes(preprocessing.labelling)
    files = map(str, labels.images)
    kept = [(file, classes[name]) for file, name in zip(files, labels.names, strict=True)]
    source = _of_files(name, kept, preprocessing)
    source.classes = by_order(classes, preprocessing.labelling)
    source.notes = tuple(_transparent(kept))
    return source


def _of_files(
    name: str, files: Sequence[tuple[str, int]], preprocessing: Preprocessing
) -> ImageSource:
    transform = preprocessing.transform()

    def read(index: int) -> tuple[Tensor, int]:
        file, label = files[index]
        with naming(file):
            return transform(read_image(Path(file))), label

    source = ImageSource(name, read, len(files))
    source.files = files
    return source


def _transparent(files: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Say where an image has transparent pixels; a few are looked at."""
    for path in (Path(file) for file, _ in files[:: max(1, len(files) // PROBED)]):
        try:
            seen = has_alpha(read_image(path))
        except Exception:  # whoever reads it says so
            continue
        if seen:
            yield f"Transparent pixels are drawn on white, as in {path.name}."
            return


def _dataset(name: str, dataset: str, root: str, preprocessing: Preprocessing) -> ImageSource:
    try:
        opened = create_dataset(dataset, root=root, split="validation", search_split=False)
        size = len(opened)
    except (AssertionError, OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            reason = f"it needs a package that is not installed (pip install {error.name})"
        raise DataError(
            f"`images` must hold images that timm can list, got {name}: {reason}"
        ) from error
    classes = _classes_of_targets(opened, preprocessing)
    transform = preprocessing.transform()

    def read(index: int) -> tuple[Tensor, int]:
        place = _where(opened, index)
        with naming(place):
            image, target = _raw(opened, index)
            values = transform(image)
        if classes is None:
            return values, -1
        if int(target) not in classes:
            raise DataError(
                f"labels must be classes of the model, from 0 to {preprocessing.num_classes - 1}, "
                f"but {place} has {int(target)}."
            )
        return values, classes[int(target)]

    source = ImageSource(name, read, size)
    source.labelled = classes is not None
    return source


def _raw(dataset: Any, index: int) -> tuple[Image.Image, int]:
    """Return an image and its target; read directly, as timm passes over unreadable images."""
    if not hasattr(dataset, "reader"):
        image, target = dataset[index]
        return image, target
    opened, target, *_ = dataset.reader[index]
    with opened:
        return read_image(opened), target


def _where(dataset: Any, index: int) -> str:
    return str(dataset.filename(index)) if hasattr(dataset, "filename") else f"image {index}"


def _classes_of_targets(dataset: Any, preprocessing: Preprocessing) -> Mapping[int, int] | None:
    """Return target of the dataset -> class of the model; None where its names do not tell."""
    opened = getattr(dataset, "reader", dataset)
    # torchvision's ImageNet has English names beside the ids that timm knows
    targets = getattr(opened, "wnid_to_idx", None) or getattr(opened, "class_to_idx", None)
    if not targets:
        return {i: i for i in range(preprocessing.num_classes)}
    known = named(targets, preprocessing.labelling)
    if known is not None:
        whole = known.keys() == set(targets)
        return {targets[name]: number for name, number in known.items()} if whole else None
    if len(targets) == preprocessing.num_classes:
        return {number: number for number in targets.values()}  # the dataset's own order
    return None
