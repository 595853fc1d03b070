"""Make timm models and load weights into them; never runs code that a file brings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from igq.errors import UnsupportedModelError, WeightsError
from igq.vit.families import FAMILIES
from igq.vit.structure import family_of


@dataclass(frozen=True)
class Architecture:
    """A timm name and the arguments that differ from its own: enough to make the model again."""

    name: str
    arguments: Mapping[str, Any]


def architecture(model: nn.Module) -> Architecture:
    """Return the name and arguments that make a model of the same shape.

    Raises:
        UnsupportedModelError: the model does not say which of timm's models it is, or is of no
            supported family.
    """
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture")
    if not name:
        raise UnsupportedModelError(
            "the model must be made by timm.create_model, which notes its name in "
            "`pretrained_cfg`; this one has none, and could not be made again from a file."
        )
    arguments = family_of(model).arguments
    with torch.device("meta"):
        stock = _build(name, {}, pretrained=False)
    described = {key: describe(model) for key, describe in arguments.items()}
    return Architecture(name, {k: v for k, v in described.items() if v != arguments[k](stock)})


def remake(made: Architecture) -> nn.Module:
    """Return a model of this architecture for evaluation, with random weights.

    Raises:
        UnsupportedModelError: timm cannot make it, or an argument says more than a shape does: a
            file's word must not have timm fetch or read anything.
    """
    known = list(dict.fromkeys(key for family in FAMILIES for key in family.arguments))
    other = sorted(made.arguments.keys() - set(known))
    if other:
        raise UnsupportedModelError(
            f"`arguments` must be among {', '.join(known)}, but got {other[0]}."
        )
    return _build(made.name, made.arguments, pretrained=False)


def create(
    name: str, arguments: Mapping[str, Any] | None = None, weights: Path | None = None
) -> nn.Module:
    """Return a timm model for evaluation, with the weights of a local file, or random ones.

    Files are `.safetensors`, or a PyTorch checkpoint of which only tensors are read.

    Raises:
        UnsupportedModelError: timm has no such model, or it does not take these arguments.
        WeightsError: the file cannot be read, does not fit, or holds NaN or infinity.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> vit(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    model = _build(name, arguments or {}, pretrained=False)
    if weights is not None:
        load_weights(model, _read_tensors(weights), str(weights))
    return model


def create_pretrained(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Return a timm model for evaluation, with the weights that timm fetches from its hub.

    Raises:
        UnsupportedModelError: timm has no such model, or it does not take these arguments.
        WeightsError: the hub cannot be reached.

    >>> create_pretrained("deit_giant")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.UnsupportedModelError: `model` must be a model that timm has, but got 'deit_giant'...
    """
    try:
        return _build(name, arguments or {}, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weights of {name} could not be fetched from the hub ({_first_line(error)}); "
            "give a local file with --weights."
        ) from error


def _build(name: str, arguments: Mapping[str, Any], pretrained: bool) -> nn.Module:
    if not timm.is_model(name.partition(".")[0]):
        close = timm.list_models(f"*{name.partition('.')[0].partition('_')[0]}*")[:3]
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise UnsupportedModelError(
            f"`model` must be a model that timm has, but got {name!r}.{hint}"
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments).eval()
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        if pretrained and isinstance(error, RuntimeError):
            raise
        raise UnsupportedModelError(
            f"timm cannot make {name} with arguments {dict(arguments)}: {_first_line(error)}"
        ) from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load tensors into a model, all of them or none.

    Raises:
        WeightsError: a tensor is missing, left over, of another shape, or not finite.
    """
    expected = model.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors:
            raise WeightsError(f"{origin} must hold every tensor of the model, but lacks {key}.")
        if key not in expected:
            raise WeightsError(f"{origin} must fit the model, but the model has no {key}.")
        if tensors[key].shape != expected[key].shape:
            raise WeightsError(
                f"{origin} must fit the model, but {key} has shape {list(tensors[key].shape)} "
                f"where the model has {list(expected[key].shape)}."
            )
        if not tensors[key].isfinite().all():
            raise WeightsError(f"{origin} must hold finite weights, but {key} has NaN or infinity.")
    model.load_state_dict(dict(tensors))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    loaded: Any
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} could not be read as weights: {_first_line(error)}") from error
    except Exception as error:  # torch raises UnpicklingError, a bare Exception
        raise WeightsError(
            f"{path} must hold tensors, and nothing that runs code: {_first_line(error)}"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise WeightsError(f"{path} must hold tensors by name alone, but holds other values.")
    return {_WRAPPERS.sub("", key): tensor for key, tensor in loaded.items()}


_WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+")
"""Prefixes that DistributedDataParallel, Lightning and torch.compile add to names."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
