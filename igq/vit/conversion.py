"""Weights that were saved under other names, or for another image size, as a timm model has them.

A checkpoint that fits as it is stays untouched. For any other, wrappers are taken off, names of
Hugging Face are translated, timm's own filter resamples positions and drops buffers, and input
channels are adapted. Whatever was done is said.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor, nn

from igq.errors import WeightsError
from igq.vit.huggingface import is_hugging_face, renamed

Tensors = dict[str, Tensor]
_WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+")
"""Prefixes that DistributedDataParallel, Lightning and torch.compile add to names."""
_EMBEDDING = "patch_embed.proj.weight"
_SPARE = re.compile(r"(^|\.)(mask_token|total_ops|total_params|num_batches_tracked|_extra_state)$")
"""Tensors that only training or counting needs."""


def unwrapped(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return tensors without the prefixes that wrappers of models add to their names.

    >>> import torch
    >>> list(unwrapped({"module._orig_mod.head.bias": torch.zeros(1)}))
    ['head.bias']
    """
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    embedding = next((name for name in plain if name.endswith(f".{_EMBEDDING}")), None)
    if embedding is None or _EMBEDDING in plain:
        return plain
    prefix = embedding.removesuffix(_EMBEDDING)  # backbone. of DINO, encoder. of others
    return {name.removeprefix(prefix): tensor for name, tensor in plain.items()}


def to_timm(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """Return tensors under timm's names, and what was done.

    Raises:
        WeightsError: they are of another library, whose names nothing here translates.
    """
    outside = _outside(tensors)
    plain = unwrapped({name: t for name, t in tensors.items() if name not in outside})
    done = [f"{_counted(outside, 'lies', 'lie')} outside of the model"] if outside else []
    if is_hugging_face(plain):
        plain = renamed(plain)
        done.append("names are translated from Hugging Face's")
    return plain, tuple(done)


_OUTER = frozenset({"head", "head_dist", "fc_norm", "norm", "classifier", "fc"})
"""Parts of a model that may lie beside the wrapped rest of it."""


def _outside(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors beside a wrapped model: of a loss, an average's counter."""
    wrapped = {_WRAPPERS.sub("", n).partition(".")[0] for n in tensors if _WRAPPERS.match(n)}
    if not wrapped:
        return []
    rest = sorted(name for name in tensors if not _WRAPPERS.match(name))
    return [name for name in rest if name.partition(".")[0] not in wrapped | _OUTER]


def _counted(names: Sequence[str], one: str, more: str) -> str:
    """Write how many tensors, a verb, and which, for instance."""
    if len(names) == 1:
        return f"{names[0]} {one}"
    return f"{len(names)} tensors, such as {names[0]}, {more}"


def fitted(model: nn.Module, tensors: Tensors, origin: str) -> tuple[Tensors, tuple[str, ...]]:
    """Return tensors under timm's names in the shapes of a model, and what was done.

    Raises:
        WeightsError: timm's filter cannot convert them.
    """
    expected = model.state_dict()
    if _fits(tensors, expected):
        return tensors, ()
    before = {name: tensor.shape for name, tensor in tensors.items()}
    found = _with_layer_scale(tensors, expected)
    found = {
        name: t
        for name, t in found.items()
        if name in expected
        or not _SPARE.search(name)
        or "register_tokens" in tensors
        or "reg_token" in expected
    }
    try:
        found = _filter(model)(found, model)
    except Exception as error:  # whatever a filter makes of names that it does not know
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{origin} could not be converted by timm: {reason}") from error
    found = {n: t for n, t in found.items() if n in expected or not _SPARE.search(n)}
    found = _with_input_channels(model, found)
    return found, tuple(_said(before, found))


def _fits(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    same = tensors.keys() == expected.keys()
    return same and all(tensors[name].shape == expected[name].shape for name in expected)


def _filter(model: nn.Module) -> Callable[[Tensors, nn.Module], Tensors]:
    """Return the filter of the timm module that a model's class comes from."""
    module: Any = sys.modules[type(model).__module__]
    chosen: Callable[[Tensors, nn.Module], Tensors]
    chosen = getattr(module, "checkpoint_filter_fn", lambda tensors, model: tensors)
    return chosen


def _with_layer_scale(tensors: Tensors, expected: Mapping[str, Tensor]) -> Tensors:
    """Rename gamma_1 of DeiT III's own code to ls1.gamma, where the model has that."""
    if not any(name.endswith("ls1.gamma") for name in expected):
        return dict(tensors)
    return {re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name): t for name, t in tensors.items()}


def _with_input_channels(model: nn.Module, tensors: Tensors) -> Tensors:
    weight = tensors.get(_EMBEDDING)
    module: Any = model
    channels = module.patch_embed.proj.in_channels
    if weight is None or weight.ndim != 4 or weight.shape[1] == channels:
        return tensors
    adapted = adapt_input_conv(channels, weight, base_chans=weight.shape[1])
    return {**tensors, _EMBEDDING: adapted}


def _said(before: Mapping[str, Any], after: Mapping[str, Tensor]) -> Iterator[str]:
    """Say which tensors were resampled, adapted, renamed and left out."""
    for name, tensor in after.items():
        was = before.get(name)
        if was is not None and was != tensor.shape:
            verb = "adapted" if name == _EMBEDDING and was[2:] == tensor.shape[2:] else "resampled"
            yield f"{name} is {verb} from {list(was)} to {list(tensor.shape)}"
    gone = sorted(before.keys() - after.keys())
    new = sorted(after.keys() - before.keys())
    if new:
        yield f"{_counted(new, 'is', 'are')} renamed"
    elif gone:
        yield f"{_counted(gone, 'is', 'are')} left out, as the model has no such part"
