"""The full-precision model of a space."""

from pathlib import Path

import torch
from torch import nn

from igq import create, create_pretrained, rotated
from igq.progress import Tell, untold
from pipeline.errors import StudyError
from pipeline.study.definition import fingerprint
from search_spaces import SearchSpace


def device() -> str:
    """Return the device that models run on here: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(
    space: SearchSpace,
    weights: Path | None = None,
    key: str | None = None,
    tell: Tell = untold,
) -> tuple[nn.Module, str]:
    """Load the model of a space, rotated as its scheme says, and return it with its hash.

    `weights` None: the space's own file, or the pretrained weights of timm's hub. `key` is the
    set of weights that is read of a checkpoint; `tell` is told what was converted.

    Raises:
        UnsupportedModelError: timm has no such model, or it cannot be quantized.
        WeightsError: the weights cannot be read, do not fit, or cannot be fetched.
    """
    spec, local = space.model, weights or space.weights
    if local is None:
        if key is not None:
            raise StudyError(f"`checkpoint_key` needs `weights`, but got {key} and no --weights.")
        model = create_pretrained(spec.name, spec.arguments)
    else:
        model = create(spec.name, spec.arguments, local, key, tell)
    return rotated(model, space.scheme.rotation), fingerprint(model)


def with_num_classes(
    space: SearchSpace, num_classes: int | None, weights: Path | None
) -> SearchSpace:
    """Return the space with its model's classifier for so many classes; None leaves it.

    Raises:
        StudyError: no file brings such a classifier.
    """
    if num_classes is None:
        return space
    if weights is None and space.weights is None:
        raise StudyError(
            "`num_classes` needs the weights of a model that was trained for so many classes, but "
            f"got num_classes={num_classes} and no --weights."
        )
    arguments = {**space.model.arguments, "num_classes": num_classes}
    model = space.model.model_copy(update={"arguments": arguments})
    return space.model_copy(update={"model": model})
