"""The catalogue of timm's supported models, found by trying each of them.

What was found with one version of timm is kept in `catalogue.json`, as trying all takes minutes;
models of another version, and those that the file does not have, are tried.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

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


def supported_models(pattern: str = "*") -> Iterator[tuple[str, str | None]]:
    """Yield the name of each vision transformer of timm's, and why it is not supported, or None.

    `pattern` is one of the shell's, such as `deit*`.

    A model that comes without a classifier is tried with one of 1,000 classes: it is supported
    where `num_classes` is given. Nothing is allocated or fetched.

    >>> next(supported_models())
    ('aimv2_1b_patch14_224', None)
    """
    for module in MODULES:
        for name in timm.list_models(module=module):
            if fnmatchcase(name, pattern):
                yield name, recorded()[name] if name in recorded() else why_unsupported(name)


@cache
def recorded() -> dict[str, str | None]:
    """Return what was found with the installed version of timm; nothing for any other."""
    kept = json.loads(Path(__file__).with_suffix(".json").read_text())
    return dict(kept["models"]) if kept["timm"] == timm.__version__ else {}


def why_unsupported(name: str) -> str | None:
    """Return why timm's model of this name, with 1,000 classes, is not supported, or None."""
    try:
        with torch.device("meta"):
            layers(create(name, {"num_classes": 1000}))
    except UnsupportedModelError as error:
        return str(error)
    return None
