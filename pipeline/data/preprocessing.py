"""From an opened image to a model's input, as timm has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from igq import ArtifactError
from pipeline.data.classes import Labelling, Order, numbered
from pipeline.data.pixels import eight_bits
from pipeline.errors import DataError

MODES = {1: "L", 3: "RGB"}
"""PIL's mode of an image with so many channels."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a model's input and its classes; plain data that an artifact carries."""

    config: Mapping[str, Any]
    num_classes: int
    classes: Mapping[str, int] | None = None
    """Name of a folder -> class; None where nothing tells."""
    order: str = Order.NATURAL.value
    """The order of class folders that `classes` says nothing of."""

    @classmethod
    def of(cls, model: nn.Module) -> "Preprocessing":
        """Return timm's preprocessing for the model, at its own image size and channels."""
        patches: Any = model.patch_embed
        size = (patches.proj.in_channels, *patches.img_size)
        config = resolve_data_config({"input_size": size}, model=model)
        for name in ("mean", "std"):  # of three channels, where the model has another number
            config[name] = tuple(config[name][i % len(config[name])] for i in range(size[0]))
        described: Any = getattr(model, "pretrained_cfg", None) or {}
        classes = _classes(described.get("label_names"))
        return cls(config, int(model.num_classes), classes)  # type: ignore[arg-type]

    @property
    def labelling(self) -> Labelling:
        """The classes of the model, and what is known of their names."""
        return Labelling(self.num_classes, self.classes, Order(self.order))

    def with_classes(self, classes: Mapping[str, int] | str | None) -> "Preprocessing":
        """Return the same with other classes, or another order of class folders."""
        if classes is None:
            return self
        if isinstance(classes, str):
            return replace(self, classes=None, order=Order(classes).value)
        return replace(self, classes=classes)

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """Return the function from an opened image to the model's input.

        Raises:
            DataError: the model takes images of neither 1 nor 3 channels.
        """
        channels = self.config["input_size"][0]
        if channels not in MODES:
            raise DataError(
                "images are read with 1 channel or 3, "
                f"but the model takes {channels} (in_chans={channels})."
            )
        transform = create_transform(**self.config, is_training=False)
        return lambda image: transform(eight_bits(image, MODES[channels]))


def preprocessing_noted(path: str | Path, notes: Mapping[str, Any]) -> Preprocessing:
    """Return how an image becomes the model's input; loading has checked its values.

    Raises:
        ArtifactError: it is not noted.
    """
    if notes.get("preprocessing") is None:
        raise ArtifactError(
            f"{path} must have been written by igq export: it notes no preprocessing."
        )
    return Preprocessing(**notes["preprocessing"])


def _classes(names: Any) -> dict[str, int] | None:
    """Return name -> class as a checkpoint has it; None where it has no such names."""
    try:
        return numbered(names) if names else None
    except ValueError:
        return None
