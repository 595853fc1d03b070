"""Make timm models and load weights into them; never runs code that a file brings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from igq.errors import UnsupportedModelError, WeightsError
from igq.progress import Tell, untold
from igq.vit.conversion import fitted, to_timm
from igq.vit.diagnosis import likely_cause
from igq.vit.families import FAMILIES
from igq.vit.reading import Checkpoint, read_checkpoint
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
    arguments, stock = family_of(model).arguments, _stock(name)
    described = {key: describe(model) for key, describe in arguments.items()}
    return Architecture(name, {k: v for k, v in described.items() if v != arguments[k](stock)})


@cache
def _stock(name: str) -> nn.Module:
    """Return timm's own model of this name, without weights."""
    with torch.device("meta"):
        return _build(name, {}, pretrained=False)


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
    name: str,
    arguments: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    key: str | None = None,
    tell: Tell = untold,
) -> nn.Module:
    """Return a timm model for evaluation, with the weights of a local file, or random ones.

    Files are `.safetensors`, or a PyTorch checkpoint of which only tensors are read: the set of
    weights named `key`, by default the moving average where there is one. Weights under other
    names, or of another image size, are converted as timm does; `tell` is told how. The number of
    classes is the checkpoint's unless `arguments` has one.

    Raises:
        UnsupportedModelError: timm has no such model, it does not take these arguments, or it is
            of no supported family and there are weights to read.
        WeightsError: the file cannot be read, does not fit, or holds NaN or infinity.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> vit(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if weights is None:
        return _build(name, arguments or {}, pretrained=False)
    checkpoint = read_checkpoint(weights, key)
    if other := _named_otherwise(name, weights):
        tell(
            f"{weights}: its name is that of timm's {other}, but the model is {name}. Weights of "
            "the same shapes fit; their images may want other preprocessing."
        )
    if key is None and checkpoint.others:
        tell(
            f"{weights}: {checkpoint.key or 'its own tensors'} are the weights that are read; "
            f"--checkpoint-key takes others: {', '.join(checkpoint.others)}."
        )
    tensors, done = to_timm(dict(checkpoint.tensors))
    model = _made_for(name, arguments or {}, tensors, checkpoint, tell)
    tensors, converted = fitted(model, tensors, str(weights))
    try:
        load_weights(model, tensors, str(weights))
    except WeightsError as error:
        raise WeightsError(f"{error}{likely_cause(model, tensors)}") from error
    for what in (*done, *converted):
        tell(f"{weights}: {what}.")
    return model


def _named_otherwise(name: str, weights: Path) -> str | None:
    """Return the model of timm's that a file is named after, where that is another one."""
    named = weights.name.partition(".")[0]
    return named if named != name.partition(".")[0] and timm.is_model(named) else None


def _made_for(
    name: str,
    arguments: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    tell: Tell,
) -> nn.Module:
    """Return a model of a checkpoint's classes and pooling, where nothing else is said."""
    model = _build(name, arguments, pretrained=False)
    family_of(model)  # weights of others are not read
    found = {k: value for k, value in _read_off(model, tensors).items() if k not in arguments}
    if found:
        said = ", ".join(f"{key}: {value}" for key, value in found.items())
        tell(f"{checkpoint.origin}: the model is made with {said}, as its weights are.")
        model = _build(name, {**arguments, **found}, pretrained=False)
    described: Any = model.pretrained_cfg
    if checkpoint.classes is not None and len(checkpoint.classes) == model.num_classes:
        described["label_names"] = checkpoint.classes
    return model


def _read_off(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments that tensors show, where the model's own differ."""
    expected: Mapping[str, Tensor] = model.state_dict()
    found: dict[str, Any] = {}
    for head in ("head.weight", "head.fc.weight"):
        theirs, ours = tensors.get(head), expected.get(head)
        if theirs is None or ours is None or theirs.shape[1:] != ours.shape[1:]:
            continue
        if len(theirs) != len(ours):
            found["num_classes"] = len(theirs)
    if "fc_norm.weight" in tensors and "norm.weight" not in tensors and "norm.weight" in expected:
        found["global_pool"] = "avg"
    return found


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
    _check_sizes(arguments)
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments).eval()
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        if pretrained and isinstance(error, RuntimeError):
            raise
        raise UnsupportedModelError(
            f"timm cannot make {name} with arguments {dict(arguments)}: {_first_line(error)}"
        ) from error


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers that would allocate without end, or nothing, before a model is made."""
    for key, value in arguments.items():
        most = MOST.get(key, 2**16)
        least, rule = (1, f"from 1 to {most}") if key in COUNTS else (-most, f"up to {most}")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not least <= number <= most:
                raise UnsupportedModelError(
                    f"`arguments` must be numbers {rule}, but got {key}={number!r}."
                )


MOST = {"depth": 512, "img_size": 4096, "in_chans": 1024}
"""The largest arguments of models; 65536 for any other (our choice)."""
COUNTS = ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "depths", "num_heads")
"""The arguments of models that count something which must be there."""


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
