"""From an opened image to a model's input, as timm has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a model's input; plain data that an artifact can carry."""

    config: Mapping[str, Any]
    num_classes: int

    @classmethod
    def of(cls, model: nn.Module) -> "Preprocessing":
        """Return timm's preprocessing for the model, at its own image size and channels."""
        patches: Any = model.patch_embed
        size = (patches.proj.in_channels, *patches.img_size)
        config = resolve_data_config({"input_size": size}, model=model)
        for name in ("mean", "std"):  # of three channels, where the model has another number
            config[name] = tuple(config[name][i % len(config[name])] for i in range(size[0]))
        return cls(config, int(model.num_classes))  # type: ignore[arg-type]

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """Return the function from an opened image to the model's input."""
        mode = "L" if self.config["input_size"][0] == 1 else "RGB"
        transform = create_transform(**self.config, is_training=False)
        return lambda image: transform(image.convert(mode))
