"""Sources of images, found by timm's dataset factory.

A *source* is a folder of class folders (WordNet ids mean ImageNet-1k classes, also where only some
are present), a folder of images without labels, `digits`, or `NAME:ROOT` for anything else that
`timm.data.create_dataset` takes, such as `torch/cifar10:/data`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import ImageNetInfo, create_dataset
from torch import Tensor

from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import DataError
from search_spaces.demo.digits import digits_split

DIGITS = "digits"


class ImageSource:
    """Images that can be read by their place in a seeded order."""

    def __init__(self, name: str, read: Callable[[int], tuple[Tensor, int]], size: int) -> None:
        self.name, self.read, self.size = name, read, size
        self.labelled = True


def open_source(name: str, preprocessing: Preprocessing) -> ImageSource:
    """Find a source of images.

    Raises:
        DataError: there is no such folder or dataset, or it is empty.
    """
    if name == DIGITS:
        return _digits()
    if name and Path(name).is_dir():
        return _dataset(name, "", name, preprocessing)
    dataset, colon, root = name.partition(":")
    if colon and "/" in dataset:
        return _dataset(name, dataset, root, preprocessing)
    raise DataError(
        "`images` must be a folder, `digits`, or NAME:ROOT as timm.data.create_dataset takes them "
        f"(torch/cifar10:/data), but got {name!r}, which is none."
    )


def class_names(sources: Iterable[str]) -> list[str] | None:
    """Return the names of the classes of these sources, where all are known; else None.

    >>> class_names(["digits"])[:3], class_names(["imagenet/val"])
    (['0', '1', '2'], None)
    """
    return [str(digit) for digit in range(10)] if set(sources) == {DIGITS} else None


def _digits() -> ImageSource:
    rest = digits_split().rest
    images, labels = torch.from_numpy(rest.images), rest.labels.tolist()
    return ImageSource(DIGITS, lambda index: (images[index], labels[index]), len(images))


def _dataset(name: str, dataset: str, root: str, preprocessing: Preprocessing) -> ImageSource:
    try:
        opened = create_dataset(dataset, root=root, split="validation", search_split=False)
        size = len(opened)
    except (AssertionError, OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"`images` must hold images that timm can list, got {name}: {reason}"
        ) from error
    classes = _class_map(opened, preprocessing.num_classes)
    transform = preprocessing.transform()

    def read(index: int) -> tuple[Tensor, int]:
        try:
            image, target = _raw(opened, index)
            values = transform(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"every image must be readable, but {_where(opened, index)} is not: {error}"
            ) from error
        if classes is None:
            return values, -1
        if int(target) not in classes:
            raise DataError(
                f"labels must be classes of the model, from 0 to {preprocessing.num_classes - 1}, "
                f"but {_where(opened, index)} has {int(target)}."
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
        image = Image.open(opened)
        image.load()
    return image, target


def _where(dataset: Any, index: int) -> str:
    return str(dataset.filename(index)) if hasattr(dataset, "filename") else f"image {index}"


def _class_map(dataset: Any, num_classes: int) -> Mapping[int, int] | None:
    """Return target of the dataset -> class of the model; None where its names do not tell."""
    opened = getattr(dataset, "reader", dataset)
    # torchvision's ImageNet has English names beside the ids that timm knows
    names = getattr(opened, "wnid_to_idx", None) or getattr(opened, "class_to_idx", None)
    if not names:
        return {i: i for i in range(num_classes)}
    imagenet = ImageNetInfo()
    known = {imagenet.index_to_label_name(i): i for i in range(imagenet.num_classes())}
    if num_classes == len(known) and names.keys() <= known.keys():
        return {target: known[name] for name, target in names.items()}
    if len(names) == num_classes:
        return {target: target for target in names.values()}
    return None
