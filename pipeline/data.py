"""Images: found by timm's dataset factory, preprocessed as the model wants, drawn disjointly.

A *source* is a folder of class folders (WordNet ids mean ImageNet-1k classes, also where only
some are present), a folder of images without labels, `digits`, or `NAME:ROOT` for whatever else
`timm.data.create_dataset` takes, such as `torch/cifar10:/data`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from timm.data import ImageNetInfo, create_dataset, create_transform, resolve_data_config
from torch import Tensor, nn

from pipeline.errors import DataError
from search_spaces.digits import digits_split

DIGITS = "digits"
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Images:
    """Preprocessed images in a fixed order, with labels where there are any."""

    source: str
    values: Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"] | None
    fingerprint: str
    """A hash of the preprocessed values, in order."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input; plain data that an artifact can carry."""

    config: Mapping[str, Any]
    num_classes: int

    @classmethod
    def of(cls, model: nn.Module) -> "Preprocessing":
        """What timm knows of the model, at the image size and channels that it has now."""
        patches: Any = model.patch_embed
        size = (patches.proj.in_channels, *patches.img_size)
        config = resolve_data_config({"input_size": size}, model=model)
        for name in ("mean", "std"):  # of three channels, where the model has another number
            config[name] = tuple(config[name][i % len(config[name])] for i in range(size[0]))
        return cls(config, int(model.num_classes))  # type: ignore[arg-type]

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """The function from an opened image to the model's input."""
        mode = "L" if self.config["input_size"][0] == 1 else "RGB"
        transform = create_transform(**self.config, is_training=False)
        return lambda image: transform(image.convert(mode))


class Source:
    """Images that can be read by their place in a seeded order."""

    def __init__(self, name: str, read: Callable[[int], tuple[Tensor, int]], size: int) -> None:
        self.name, self.read, self.size = name, read, size
        self.labelled = True


def open_source(name: str, preprocessing: Preprocessing) -> Source:
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


def draw(
    wanted: Mapping[str, tuple[Source, int, int]],
    seed: int,
    progress: Progress = lambda share: None,
) -> dict[str, Images]:
    """Draw images for each purpose, no image for two of them: purpose -> (source, least, most).

    Purposes are served in order from a seeded shuffle of their source. An image that was drawn
    before, in whatever file, is passed over.

    Raises:
        DataError: a source holds too few images, or one that cannot be read.
    """
    orders: dict[str, Iterator[int]] = {}
    seen: set[bytes] = set()
    total = sum(min(most, source.size) for source, _, most in wanted.values())
    drawn = {}
    for purpose, (source, least, most) in wanted.items():
        shuffled = np.random.default_rng(seed).permutation(source.size).tolist()
        order = orders.setdefault(source.name, iter(shuffled))
        drawn[purpose] = _take(purpose, source, order, least, most, seen)
        progress(min(1.0, len(seen) / total))
    return drawn


def load_all(source: Source, progress: Progress = lambda share: None) -> Images:
    """Every image of a source, in its own order.

    Raises:
        DataError: an image cannot be read.
    """
    rows = []
    for index in range(source.size):
        rows.append(source.read(index))
        progress((index + 1) / source.size)
    return _images(source, rows)


def _take(
    purpose: str, source: Source, order: Iterator[int], least: int, most: int, seen: set[bytes]
) -> Images:
    rows: list[tuple[Tensor, int]] = []
    while len(rows) < most and (index := next(order, None)) is not None:
        image, label = source.read(index)
        content = hashlib.sha256(image.numpy().tobytes()).digest()
        if content not in seen:
            seen.add(content)
            rows.append((image, label))
    if len(rows) < least:
        raise DataError(
            f"{source.name} must hold at least {least} images for {purpose} that no other purpose "
            f"has taken, but holds {len(rows)}."
        )
    return _images(source, rows)


def _images(source: Source, rows: Sequence[tuple[Tensor, int]]) -> Images:
    values = torch.stack([image for image, _ in rows]) if rows else torch.empty(0, 1, 1, 1)
    labels = torch.tensor([label for _, label in rows]).long() if source.labelled else None
    fingerprint = hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]
    return Images(source.name, values, labels, fingerprint)


def _digits() -> Source:
    rest = digits_split().rest
    images, labels = torch.from_numpy(rest.images), rest.labels.tolist()
    return Source(DIGITS, lambda index: (images[index], labels[index]), len(images))


def _dataset(name: str, dataset: str, root: str, preprocessing: Preprocessing) -> Source:
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

    source = Source(name, read, size)
    source.labelled = classes is not None
    return source


def _raw(dataset: Any, index: int) -> tuple[Image.Image, int]:
    """An image and its target; read directly, as timm passes over images that it cannot read."""
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
    """A dataset's target -> the model's class; None where its names do not tell."""
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
