"""The quantizer as one would write it down first: the oracle for what is faster, and its rival.

Range, distance to every group, choice, the quantization of Eq. 1-3 and the sums of softmax rows are
one tensor operation after the other, in float32 and without any reuse.
"""

import torch
from torch import Tensor, nn

from igq.affine import QuantizedTensor
from igq.grouping import GroupQuantizer, Quantizer, expected_error, squared_distance
from igq.layers import Assignment, num_cells
from igq.vit import with_slots


class PlainQuantize(nn.Module):
    """Fake quantization of one activation, step by step."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        if self.quantizer.slices.side_by_side:
            cells = num_cells(x.shape[-1])
            width = -(-cells // self.quantizer.num_groups) * -(-x.shape[-1] // cells)
            values = torch.cat([self._quantized(part, (-1,)) for part in x.split(width, -1)], -1)
        else:
            values = self._quantized(x, self.quantizer.slices.reduced(x.ndim))
        if self.quantizer.slices.keeps_sum:
            values = values + (1 - values.sum(-1, keepdim=True)) / x.shape[-1]
        return values

    def _quantized(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        least, most = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
        if isinstance(self.quantizer, GroupQuantizer):
            ranges = torch.stack((least, most), -1)
            nearest = self.quantizer.assignment is Assignment.NEAREST
            distance = squared_distance if nearest else expected_error
            group = distance(ranges, self.quantizer.groups).argmin(-1)
            least, most = self.quantizer.lower[group], self.quantizer.upper[group]
        levels = 2**self.quantizer.bits - 1
        least, most = least.clamp(max=0), most.clamp(min=0)
        scale = ((most - least) / levels).clamp(min=1e-12)
        zero_point = torch.clamp(torch.round(-least / scale), 0, levels)
        codes = torch.clamp(torch.round(x / scale) + zero_point, 0, levels)
        return (codes - zero_point) * scale  # type: ignore[no-any-return]


def plain(
    model: nn.Module, quantizers: dict[str, Quantizer], weights: dict[str, QuantizedTensor]
) -> nn.Module:
    """The quantized model, computed plainly."""
    return with_slots(model, lambda layer: PlainQuantize(quantizers[layer.name]), weights)
