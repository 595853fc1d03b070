"""The full-precision model of a space."""

from pathlib import Path

import torch
from torch import nn

from igq import create, create_pretrained, rotated
from pipeline.study.definition import fingerprint
from search_spaces import SearchSpace


def device() -> str:
    """Return the device that models run on here: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(space: SearchSpace, weights: Path | None = None) -> tuple[nn.Module, str]:
    """Load the model of a space, rotated as its scheme says, and return it with its hash.

    `weights` None: the space's own file, or the pretrained weights of timm's hub.

    Raises:
        UnsupportedModelError: timm has no such model, or it cannot be quantized.
        WeightsError: the weights cannot be read, do not fit, or cannot be fetched.
    """
    spec, local = space.model, weights or space.weights
    if local is None:
        model = create_pretrained(spec.name, spec.arguments)
    else:
        model = create(spec.name, spec.arguments, local)
    return rotated(model, space.scheme.rotation), fingerprint(model)
