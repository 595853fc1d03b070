"""The quantizer written in the plainest way: an oracle for faster code, and its rival.

Range, distance to every group, choice, the quantization of Eq. 1-3 and the sums of softmax rows are
one tensor operation after the other, in float32 and without any reuse.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.grouping import GroupQuantizer, Quantizer
from igq.grouping.base import expected_error, squared_distance
from igq.grouping.contiguous import Contiguous, num_cells
from igq.quantized import with_slots
from igq.scheme import Assignment


class PlainQuantize(nn.Module):
    """Fake quantization of one activation, step by step."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        quantizer, grouping = self.quantizer, self.quantizer.grouping
        if isinstance(grouping, Contiguous):
            cells = num_cells(x.shape[-1])
            width = -(-cells // quantizer.num_groups) * -(-x.shape[-1] // cells)
            parts = x.split(width, -1)
            ranges = [(p.amin(-1, keepdim=True), p.amax(-1, keepdim=True)) for p in parts]
            quantized = [self._quantized(p, *r) for p, r in zip(parts, ranges, strict=True)]
            values = torch.cat(quantized, -1)
        else:
            values = self._quantized(x, *grouping.ranges(x).unbind(-1))
        if grouping.keeps_sum:
            values = values + (1 - values.sum(-1, keepdim=True)) / x.shape[-1]
        return values

    def _quantized(self, x: Tensor, least: Tensor, most: Tensor) -> Tensor:
        quantizer = self.quantizer
        if isinstance(quantizer, GroupQuantizer):
            ranges = torch.stack((least, most), -1)
            nearest = quantizer.grouping.assignment is Assignment.NEAREST
            distance = squared_distance if nearest else expected_error
            group = distance(ranges, quantizer.groups).argmin(-1)
            least, most = quantizer.lower[group], quantizer.upper[group]
        levels = 2**quantizer.bits - 1
        least, most = least.clamp(max=0), most.clamp(min=0)
        scale = ((most - least) / levels).clamp(min=1e-12)
        zero_point = torch.clamp(torch.round(-least / scale), 0, levels)
        codes = torch.clamp(torch.round(x / scale) + zero_point, 0, levels)
        values: Tensor = (codes - zero_point) * scale
        return values


def plain(
    model: nn.Module, quantizers: Mapping[str, Quantizer], weights: Mapping[str, QuantizedTensor]
) -> nn.Module:
    """Return the quantized model, computed plainly; `model` is rotated as its scheme says."""
    return with_slots(model, lambda layer: PlainQuantize(quantizers[layer.name]), weights)
