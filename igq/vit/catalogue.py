"""The catalogue of timm's supported models, found by trying each of them."""

from collections.abc import Iterator

import timm
import torch

from igq.errors import UnsupportedModelError
from igq.vit.checkpoints import create
from igq.vit.structure import layers

MODULES = (
    "vision_transformer",
    "deit",
    "swin_transformer",
    "beit",
    "eva",
    "cait",
    "naflexvit",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
)
"""timm's modules of vision transformers, those of the supported families first."""


def supported_models() -> Iterator[tuple[str, str | None]]:
    """Yield the name of each vision transformer of timm's, and why it is not supported, or None.

    A model that comes without a classifier is tried with one of 1,000 classes: it is supported
    where `num_classes` is given. Nothing is allocated or fetched; all take a minute or so.

    >>> next(supported_models())
    ('aimv2_1b_patch14_224', None)
    """
    for module in MODULES:
        for name in timm.list_models(module=module):
            yield name, why_unsupported(name)


def why_unsupported(name: str) -> str | None:
    """Return why timm's model of this name, with 1,000 classes, is not supported, or None."""
    try:
        with torch.device("meta"):
            layers(create(name, {"num_classes": 1000}))
    except UnsupportedModelError as error:
        return str(error)
    return None
