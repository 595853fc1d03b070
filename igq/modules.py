"""Modules that take the place of a model's own, with a slot where each activation passes.

A slot is any module from tensor to tensor: `Observer` writes ranges down, `FakeQuantize` and
`FakeQuantizeSlices` quantize, `nn.Identity` does nothing. The fitted quantizers are held as
buffers, so that they follow the model from device to device.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from igq.affine import QuantizedTensor
from igq.grouping import (
    GroupQuantizer,
    Groups,
    Quantizer,
    SliceQuantizer,
    quantize_own_ranges,
    quantize_slices,
)
from igq.layers import Assignment, Layer, Slices, slice_ranges
from igq.rotation import RotatedLinear, rotate

Slot = Callable[[Layer], nn.Module]
"""Makes the module that a layer's activation passes through."""


class FakeQuantize(nn.Module):
    """A fitted quantizer as a module."""

    lower: Tensor
    upper: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: GroupQuantizer) -> None:
        super().__init__()
        self.bits = quantizer.bits
        self.slices, self.assignment = quantizer.slices, quantizer.assignment
        for name, tensor in quantizer.groups._asdict().items():
            self.register_buffer(name, tensor)

    @property
    def quantizer(self) -> GroupQuantizer:
        """The fitted quantizer, as a value."""
        return GroupQuantizer(self.lower, self.upper, self.bits, self.slices, self.assignment)

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Quantize and dequantize each slice with the group that it picks in its image."""
        groups = Groups(self.lower, self.upper, self.scale, self.zero_point)
        return quantize_slices(x, groups, self.bits, self.slices, self.assignment)

    def extra_repr(self) -> str:
        return (
            f"num_groups={len(self.lower)}, bits={self.bits}, slices={self.slices.value}, "
            f"assignment={self.assignment.value}"
        )


class FakeQuantizeSlices(nn.Module):
    """One quantizer for each slice as a module; nothing is fitted."""

    def __init__(self, quantizer: SliceQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Quantize and dequantize each slice with its own range."""
        return self.quantizer(x)

    def extra_repr(self) -> str:
        q = self.quantizer
        return f"num_groups={q.num_groups}, bits={q.bits}, slices={q.slices.value}"


def slot_of(quantizer: Quantizer) -> FakeQuantize | FakeQuantizeSlices:
    """The module that quantizes so."""
    if isinstance(quantizer, GroupQuantizer):
        return FakeQuantize(quantizer)
    return FakeQuantizeSlices(quantizer)


class SwitchedFakeQuantize(nn.Module):
    """A place for any quantizer of a layer; what is compiled for one is compiled for all.

    The numbers of groups up to `capacity`, bits, and whether it quantizes at all are values of
    tensors, loaded in place: neither a shape nor an address changes. Groups that are not there
    lie at infinity, where no slice picks them. Without capacity every slice has its own range.
    """

    groups: Tensor
    num_groups: Tensor
    bits: Tensor

    def __init__(
        self, slices: Slices, capacity: int, assignment: Assignment = Assignment.NEAREST
    ) -> None:
        super().__init__()
        self.slices, self.capacity, self.assignment = slices, capacity, assignment
        self.quantizer: Quantizer | None = None
        self.register_buffer("groups", torch.full((4, capacity), torch.inf))
        self.register_buffer("num_groups", torch.tensor(1))
        self.register_buffer("bits", torch.tensor(0.0))

    def takes(self, quantizer: Quantizer | None) -> bool:
        """Whether `load` can hold it."""
        if isinstance(quantizer, GroupQuantizer):
            same = quantizer.assignment is self.assignment
            return same and quantizer.num_groups <= self.capacity
        return quantizer is None or self.capacity == 0

    def load(self, quantizer: Quantizer | None) -> None:
        """Quantize so from now on, where it `takes` that; None: pass everything on."""
        self.quantizer = quantizer
        self.bits.fill_(0 if quantizer is None else quantizer.bits)
        if isinstance(quantizer, GroupQuantizer):
            self.groups[:, : quantizer.num_groups] = torch.stack(quantizer.groups)
            self.groups[:, quantizer.num_groups :] = torch.inf
        elif quantizer is not None:
            self.num_groups.fill_(quantizer.num_groups)

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Quantize and dequantize each slice with the loaded quantizer (Eq. 1-5)."""
        if self.capacity:
            groups = Groups(*self.groups.unbind())
            quantized = quantize_slices(x, groups, self.bits, self.slices, self.assignment)
        else:
            quantized = quantize_own_ranges(x, self.bits, self.slices, self.num_groups)
        return torch.where(self.bits > 0, quantized, x)

    def extra_repr(self) -> str:
        return (
            f"quantizer={self.quantizer}, capacity={self.capacity}, slices={self.slices.value}, "
            f"assignment={self.assignment.value}"
        )


class Observer(nn.Module):
    """Passes an activation on unchanged and keeps the range of each slice in each image."""

    def __init__(self, slices: Slices) -> None:
        super().__init__()
        self.slices = slices
        self.seen: list[Tensor] = []

    def forward(self, x: Float[Tensor, "images ..."]) -> Float[Tensor, "images ..."]:
        """Note the ranges of `x` and return it."""
        self.seen.append(slice_ranges(x.detach(), self.slices).reshape(len(x), -1, 2))
        return x

    def ranges(self) -> Float[Tensor, "images slices 2"]:
        """All ranges seen so far."""
        return torch.cat(self.seen)


class _Product(nn.Module):
    """A product of an activation that passes a slot with a weight, quantized or not."""

    def __init__(
        self, source: nn.Linear | nn.Conv2d, activation: nn.Module, weight: QuantizedTensor | None
    ) -> None:
        super().__init__()
        self.activation = activation
        self.quantized_weight = weight
        self.weight: nn.Parameter | Tensor
        if weight is None:
            self.weight = source.weight
        else:
            self.register_buffer("weight", weight.dequantize().to(source.weight))
        self.bias = source.bias


class Linear(_Product):
    """A linear layer whose input passes a slot."""

    rotation: Tensor | None
    """Where the slot and the weight see the input in a rotated basis."""
    codes: Tensor | None
    scale: Tensor | None

    def __init__(
        self, source: nn.Linear, activation: nn.Module, weight: QuantizedTensor | None
    ) -> None:
        super().__init__(source, activation, weight)
        self.register_buffer("codes", None, persistent=False)
        self.register_buffer("scale", None, persistent=False)
        self.in_features, self.out_features = source.in_features, source.out_features
        rotation = source.rotation if isinstance(source, RotatedLinear) else None
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """The product of the slot's output with the weight."""
        x = self.activation(x if self.rotation is None else rotate(x, self.rotation))
        if self.codes is None or self.scale is None:
            return F.linear(x, self.weight, self.bias)
        y = F.linear(x.bfloat16(), self.codes).float() * self.scale
        return y if self.bias is None else y + self.bias

    def in_bfloat16(self) -> None:
        """Multiply in bfloat16 from now on: whole numbers, which it holds exactly, then scales."""
        held = self.quantized_weight
        if held is None:
            codes, scale = self.weight.detach(), torch.ones(self.out_features)
        else:
            codes, scale = held.codes.float() - held.zero_point[:, None], held.scale
        self.codes, self.scale = codes.to(self.weight.device, torch.bfloat16), scale.to(self.weight)


class Conv2d(_Product):
    """A convolution whose input passes a slot."""

    def __init__(
        self, source: nn.Conv2d, activation: nn.Module, weight: QuantizedTensor | None
    ) -> None:
        super().__init__(source, activation, weight)
        self.in_channels, self.out_channels = source.in_channels, source.out_channels
        self.kernel_size = source.kernel_size
        self.stride, self.padding = source.stride, source.padding
        self.dilation, self.groups = source.dilation, source.groups

    def forward(self, x: Float[Tensor, "images inputs h w"]) -> Float[Tensor, "images outputs i j"]:
        """The convolution of the slot's output with the weight."""
        return F.conv2d(
            self.activation(x),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
