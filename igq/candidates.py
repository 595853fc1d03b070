"""Every layer fitted for every number of groups, once; a trial only selects from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from igq.affine import check_bits
from igq.errors import InvalidArgumentError
from igq.fitting import fit_groups
from igq.grouping import GroupQuantizer, Quantizer, SliceQuantizer
from igq.layers import Layer, check_num_groups, num_cells
from igq.observer import Ranges
from igq.settings import Choice, Setting


@dataclass(frozen=True, eq=False)
class Candidates:
    """layer -> num_groups -> quantizer; layers that are not grouped have the one entry, 1.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> allocation = igq.uniform(igq.layers(vit), 4)
    >>> candidates.select(allocation)["blocks.0.mlp.fc1"].num_groups
    4
    """

    layers: tuple[Layer, ...]
    num_groups: tuple[int, ...]
    quantizers: Mapping[str, Mapping[int, Quantizer]]

    def select(self, allocation: Mapping[str, Choice]) -> dict[str, Quantizer]:
        """The quantizer of every layer of the model under `allocation`.

        Raises:
            InvalidArgumentError: a layer is missing or unknown, or its number of groups was not
                fitted.
        """
        mixed = any(isinstance(choice, Setting) for choice in allocation.values())
        names = {layer.name for layer in self.layers if layer.grouped or mixed}
        if set(allocation) != names:
            odd = sorted(names ^ set(allocation))
            raise InvalidArgumentError(
                f"`allocation` must name each of the {len(names)} layers once, "
                f"but differs in {', '.join(odd[:3])}{' ...' if len(odd) > 3 else ''}."
            )
        return {layer.name: self.one(layer, allocation.get(layer.name, 1)) for layer in self.layers}

    def one(self, layer: Layer, choice: Choice) -> Quantizer:
        """The quantizer of a layer; what it is fitted to does not depend on its bits.

        Raises:
            InvalidArgumentError: its number of groups was not fitted.
        """
        setting = choice if isinstance(choice, Setting) else Setting(num_groups=choice)
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

    def upper_bound(self) -> dict[str, Quantizer]:
        """The limit of many groups: one quantizer for each slice, with the slice's own range."""
        chosen: dict[str, Quantizer] = {}
        for layer in self.layers:
            fitted = next(iter(self.quantizers[layer.name].values()))
            cells = num_cells(layer.channels) if layer.slices.side_by_side else 1
            own = SliceQuantizer(fitted.bits, layer.slices, cells)
            chosen[layer.name] = own if layer.grouped else fitted
        return chosen


def fit(
    ranges: Ranges,
    num_groups: Sequence[int],
    bits: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Candidates:
    """Fit every layer for every number of groups (Eq. 4-8); `bits` are `activation_bits`.

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
    quantizers = {}
    for done, layer in enumerate(ranges.layers, start=1):
        quantizers[layer.name] = _fit_layer(layer, ranges, num_groups, bits)
        progress(done / len(ranges.layers))
    return Candidates(ranges.layers, tuple(num_groups), quantizers)


def bounds(candidates: Candidates) -> dict[str, Tensor]:
    """All that was fitted, as tensors that can be stored: `LAYER/NUM_GROUPS` -> bounds.

    Bounds are (groups, 2): lower and upper. `with_bounds` is the way back.
    """
    return {
        f"{name}/{groups}": torch.stack((quantizer.lower, quantizer.upper), dim=-1)
        for name, fitted in candidates.quantizers.items()
        for groups, quantizer in fitted.items()
        if isinstance(quantizer, GroupQuantizer)
    }


def with_bounds(
    layers: tuple[Layer, ...],
    num_groups: Sequence[int],
    bits: int,
    stored: Mapping[str, Float[Tensor, "groups 2"]],
) -> Candidates:
    """The candidates whose bounds were stored.

    Raises:
        KeyError: a layer's bounds are missing.
    """

    def quantizer(layer: Layer, groups: int) -> Quantizer:
        if layer.slices.own_range:
            return SliceQuantizer(layer.bits or bits, layer.slices, groups)
        lower, upper = stored[f"{layer.name}/{groups}"].unbind(-1)
        return GroupQuantizer(lower, upper, layer.bits or bits, layer.slices, layer.assignment)

    quantizers = {
        layer.name: {groups: quantizer(layer, groups) for groups in _choices(layer, num_groups)}
        for layer in layers
    }
    return Candidates(layers, tuple(num_groups), quantizers)


def _fit_layer(
    layer: Layer, ranges: Ranges, num_groups: Sequence[int], bits: int
) -> Mapping[int, Quantizer]:
    layer_bits = check_bits(layer.bits or bits)
    choices = _choices(layer, num_groups)
    if layer.slices.own_range:  # our choice, measured in docs/decisions.md
        return {groups: SliceQuantizer(layer_bits, layer.slices, groups) for groups in choices}
    return fit_groups(ranges[layer.name], choices, layer_bits, layer.slices, layer.assignment)


def _choices(layer: Layer, num_groups: Sequence[int]) -> Sequence[int]:
    return num_groups if layer.grouped else (1,)
