"""The quantizer as one would write it down first: the oracle for what is faster, and its rival.

Range, distance to every group, choice, the quantization of Eq. 1-3 and the sums of softmax rows are
one tensor operation after the other, in float32 and without any reuse.
"""

import torch
from torch import Tensor, nn

from igq.affine import QuantizedTensor
from igq.grouping import GroupQuantizer, Quantizer
from igq.layers import Layer, Slices
from igq.vit import with_slots


class PlainQuantize(nn.Module):
    """Fake quantization of one activation, step by step."""

    def __init__(self, layer: Layer, quantizer: Quantizer) -> None:
        super().__init__()
        self.layer, self.quantizer = layer, quantizer

    def forward(self, x: Tensor) -> Tensor:
        axes = self.layer.slices.reduced(x.ndim)
        least, most = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
        if isinstance(self.quantizer, GroupQuantizer):
            below = (least.unsqueeze(-1) - self.quantizer.lower) ** 2
            above = (most.unsqueeze(-1) - self.quantizer.upper) ** 2
            group = (below + above).argmin(-1)
            least, most = self.quantizer.lower[group], self.quantizer.upper[group]
        levels = 2**self.quantizer.bits - 1
        least, most = least.clamp(max=0), most.clamp(min=0)
        scale = ((most - least) / levels).clamp(min=1e-12)
        zero_point = torch.clamp(torch.round(-least / scale), 0, levels)
        codes = torch.clamp(torch.round(x / scale) + zero_point, 0, levels)
        values = (codes - zero_point) * scale
        if self.quantizer.slices is Slices.UNIT_ROWS:
            values = values + (1 - values.sum(-1, keepdim=True)) / x.shape[-1]
        return values  # type: ignore[no-any-return]


def plain(
    model: nn.Module, quantizers: dict[str, Quantizer], weights: dict[str, QuantizedTensor]
) -> nn.Module:
    """The quantized model, computed plainly."""
    return with_slots(model, lambda layer: PlainQuantize(layer, quantizers[layer.name]), weights)
