"""Products of an activation that passes a slot with a weight, quantized or not."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rotation import RotatedLinear, rotate


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
        """Multiply the slot's output with the weight."""
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
        """Convolve the slot's output with the weight."""
        return F.conv2d(
            self.activation(x),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
