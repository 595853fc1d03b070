"""Slots: modules that an activation passes, from tensor to tensor.

`Observer` keeps ranges, `FakeQuantize` and `FakeQuantizeSlices` quantize, `nn.Identity` does
nothing. Fitted quantizers are held as buffers, so that they follow the model from device to device.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.grouping import (
    FittedGrouping,
    Grouping,
    GroupQuantizer,
    Groups,
    Quantizer,
    SliceQuantizer,
)
from igq.layer import Layer

Slot = Callable[[Layer], nn.Module]
"""Makes the module that a layer's activation passes."""


class FakeQuantize(nn.Module):
    """A fitted quantizer as a module."""

    lower: Tensor
    upper: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: GroupQuantizer) -> None:
        super().__init__()
        self.bits, self.grouping = quantizer.bits, quantizer.grouping
        for name, tensor in quantizer.groups._asdict().items():
            self.register_buffer(name, tensor)

    @property
    def quantizer(self) -> GroupQuantizer:
        """The fitted quantizer, as a value."""
        return GroupQuantizer(self.lower, self.upper, self.bits, self.grouping)

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize each slice with the group that it picks in its image."""
        groups = Groups(self.lower, self.upper, self.scale, self.zero_point)
        return self.grouping.quantize(x, groups, self.bits)

    def extra_repr(self) -> str:
        return f"num_groups={len(self.lower)}, bits={self.bits}, {self.grouping}"


class FakeQuantizeSlices(nn.Module):
    """One quantizer for each slice as a module; nothing is fitted."""

    def __init__(self, quantizer: SliceQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize each slice with its own range."""
        return self.quantizer(x)

    def extra_repr(self) -> str:
        q = self.quantizer
        return f"num_groups={q.num_groups}, bits={q.bits}, {q.grouping.tag}"


def slot_of(quantizer: Quantizer) -> FakeQuantize | FakeQuantizeSlices:
    """Return the module that applies a quantizer."""
    if isinstance(quantizer, GroupQuantizer):
        return FakeQuantize(quantizer)
    return FakeQuantizeSlices(quantizer)


class SwitchedFakeQuantize(nn.Module):
    """A slot for any quantizer of one grouping; a block compiled for one serves them all.

    The numbers of groups up to `capacity`, the bits, and whether it quantizes at all are values of
    tensors, loaded in place: neither a shape nor an address changes. Unused groups lie at infinity,
    where no slice picks them. With a capacity of 0 every slice takes its own range.
    """

    groups: Tensor
    num_groups: Tensor
    bits: Tensor

    def __init__(self, grouping: Grouping, capacity: int) -> None:
        super().__init__()
        self.grouping, self.capacity = grouping, capacity
        self.quantizer: Quantizer | None = None
        self.register_buffer("groups", torch.full((4, capacity), torch.inf))
        self.register_buffer("num_groups", torch.tensor(1))
        self.register_buffer("bits", torch.tensor(0.0))

    def takes(self, quantizer: Quantizer | None) -> bool:
        """Return whether `load` can hold a quantizer."""
        if quantizer is None:
            return True
        if quantizer.grouping != self.grouping:
            return False
        fitted = isinstance(quantizer, GroupQuantizer)
        return quantizer.num_groups <= self.capacity if fitted else self.capacity == 0

    def load(self, quantizer: Quantizer | None) -> None:
        """Apply a quantizer that `takes` accepts from now on; None: pass activations on."""
        self.quantizer = quantizer
        self.bits.fill_(0 if quantizer is None else quantizer.bits)
        if isinstance(quantizer, GroupQuantizer):
            self.groups[:, : quantizer.num_groups] = torch.stack(quantizer.groups)
            self.groups[:, quantizer.num_groups :] = torch.inf
        elif quantizer is not None:
            self.num_groups.fill_(quantizer.num_groups)

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Fake-quantize each slice with the loaded quantizer (Eq. 1-5)."""
        if self.capacity and isinstance(self.grouping, FittedGrouping):
            quantized = self.grouping.quantize(x, Groups(*self.groups.unbind()), self.bits)
        else:
            quantized = self.grouping.quantize_own_ranges(x, self.bits, self.num_groups)
        return torch.where(self.bits > 0, quantized, x)

    def extra_repr(self) -> str:
        return f"quantizer={self.quantizer}, capacity={self.capacity}, {self.grouping}"


class Observer(nn.Module):
    """Passes an activation on unchanged and keeps the range of each slice in each image."""

    def __init__(self, grouping: Grouping) -> None:
        super().__init__()
        self.grouping = grouping
        self.seen: list[Tensor] = []

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Keep the ranges of `x` and return it."""
        self.seen.append(self.grouping.ranges(x.detach()).reshape(len(x), -1, 2))
        return x

    def ranges(self) -> Float[Tensor, "images slices 2"]:
        """Return all ranges seen so far."""
        return torch.cat(self.seen)
