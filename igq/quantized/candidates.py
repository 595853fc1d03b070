"""Every layer fitted for every number of groups, once; a trial only selects from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from igq.arithmetic.affine import check_bits
from igq.errors import InvalidArgumentError
from igq.grouping import (
    FittedGrouping,
    GroupQuantizer,
    Quantizer,
    SliceQuantizer,
    grouping_of,
)
from igq.layer import Layer, check_num_groups
from igq.progress import Progress, silent
from igq.quantized.observer import Ranges
from igq.scheme import Scheme
from igq.settings import Setting


@dataclass(frozen=True, eq=False)
class Selection(Mapping[str, Quantizer]):
    """The quantizer of every layer under one allocation, and the scheme that they belong to.

    >>> Selection(Scheme.PAPER, {}).scheme is Scheme.PAPER
    True
    """

    scheme: Scheme
    quantizers: Mapping[str, Quantizer]

    def __getitem__(self, name: str) -> Quantizer:
        return self.quantizers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantizers)

    def __len__(self) -> int:
        return len(self.quantizers)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Layer -> number of groups -> quantizer; a layer that is not grouped has the one entry, 1.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> candidates.select(igq.uniform(candidates.layers, 4))["blocks.0.mlp.fc1"].num_groups
    4
    """

    layers: tuple[Layer, ...]
    scheme: Scheme
    num_groups: tuple[int, ...]
    bits: int
    """The bits of activations, unless a layer or a setting has its own."""
    quantizers: Mapping[str, Mapping[int, Quantizer]]

    def select(self, allocation: Mapping[str, Setting]) -> Selection:
        """Return the quantizer of every layer of the model under `allocation`.

        An allocation of groups alone names the grouped layers, one with bits names all layers.

        Raises:
            InvalidArgumentError: a layer is missing or unknown, or its number of groups was not
                fitted.
        """
        bits = any(s.weight_bits or s.activation_bits for s in allocation.values())
        names = {layer.name for layer in self.layers if layer.grouped or bits}
        if set(allocation) != names:
            odd = sorted(names ^ set(allocation))
            raise InvalidArgumentError(
                f"`allocation` must name each of the {len(names)} layers once, "
                f"but differs in {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}."
            )
        none = Setting()
        return Selection(
            self.scheme,
            {la.name: self.one(la, allocation.get(la.name, none)) for la in self.layers},
        )

    def one(self, layer: Layer, setting: Setting) -> Quantizer:
        """Return the quantizer of a layer; its bounds do not depend on the setting's bits.

        Raises:
            InvalidArgumentError: its number of groups was not fitted.
        """
        fitted = self.quantizers[layer.name]
        wanted = (setting.num_groups or 1) if layer.grouped else 1
        if wanted not in fitted:
            raise InvalidArgumentError(
                f"`num_groups` must be one of {sorted(fitted)}, but got {wanted} for {layer.name}."
            )
        bits = layer.bits or setting.activation_bits
        if bits is None or bits == fitted[wanted].bits:
            return fitted[wanted]
        return replace(fitted[wanted], bits=check_bits(bits))

    def upper_bound(self) -> Selection:
        """Return the limit of many groups: every slice of a grouped layer has its own range."""
        chosen: dict[str, Quantizer] = {}
        for layer in self.layers:
            fitted = next(iter(self.quantizers[layer.name].values()))
            grouping = fitted.grouping
            own = SliceQuantizer(fitted.bits, grouping, grouping.most_groups(layer))
            chosen[layer.name] = own if layer.grouped else fitted
        return Selection(self.scheme, chosen)


def fit(
    ranges: Ranges, num_groups: Sequence[int], bits: int, progress: Progress = silent
) -> Candidates:
    """Fit every layer for every number of groups (Eq. 4-8); `bits` are those of activations.

    Raises:
        InvalidArgumentError: `bits` or `num_groups` out of range, or a range is not finite.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> list(candidates.quantizers["blocks.0.mlp.fc1"]), list(candidates.quantizers["head"])
    ([2, 4], [1])
    """
    check_num_groups(num_groups)
    quantizers: dict[str, Mapping[int, Quantizer]] = {}
    for done, layer in enumerate(ranges.layers, start=1):
        grouping = grouping_of(layer, ranges.scheme)
        observed = ranges[layer.name] if grouping.fitted else None
        counts = _counts(layer, num_groups)
        quantizers[layer.name] = grouping.fit(observed, counts, layer.bits or bits)
        progress(done / len(ranges.layers))
    return Candidates(ranges.layers, ranges.scheme, tuple(num_groups), bits, quantizers)


def bounds(candidates: Candidates) -> dict[str, Tensor]:
    """Return all fitted bounds as tensors that can be stored: `LAYER/NUM_GROUPS` -> bounds.

    Bounds are (groups, 2): lower and upper. `with_bounds` makes the candidates again.
    """
    return {
        f"{name}/{groups}": torch.stack((quantizer.lower, quantizer.upper), dim=-1)
        for name, fitted in candidates.quantizers.items()
        for groups, quantizer in fitted.items()
        if isinstance(quantizer, GroupQuantizer)
    }


def with_bounds(
    layers: tuple[Layer, ...],
    scheme: Scheme,
    num_groups: Sequence[int],
    bits: int,
    stored: Mapping[str, Float[Tensor, "groups 2"]],
) -> Candidates:
    """Return the candidates whose bounds were stored.

    Raises:
        KeyError: a layer's bounds are missing.
    """

    def quantizer(layer: Layer, groups: int) -> Quantizer:
        grouping = grouping_of(layer, scheme)
        if not isinstance(grouping, FittedGrouping):
            return SliceQuantizer(layer.bits or bits, grouping, groups)
        lower, upper = stored[f"{layer.name}/{groups}"].unbind(-1)
        return GroupQuantizer(lower, upper, layer.bits or bits, grouping)

    quantizers = {
        layer.name: {groups: quantizer(layer, groups) for groups in _counts(layer, num_groups)}
        for layer in layers
    }
    return Candidates(layers, scheme, tuple(num_groups), bits, quantizers)


def _counts(layer: Layer, num_groups: Sequence[int]) -> Sequence[int]:
    return num_groups if layer.grouped else (1,)
