"""Weights: one uniform quantizer for each output channel.

The paper takes bounds at the eps-th and (100 - eps)-th percentile of a channel and leaves eps
open. Our choice: for each channel the eps whose quantized weights are nearest in squared error.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from igq.arithmetic.affine import (
    QuantizedTensor,
    affine_parameters,
    check_bits,
    fake_quantize,
    quantize_codes,
)
from igq.errors import WeightsError

PERCENTILES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
"""The values of eps that are tried, in percent."""


def quantize_weight(weight: Float[Tensor, "outputs ..."], bits: int) -> QuantizedTensor:
    """Quantize a weight to the nearest codes, with bounds for each output channel (axis 0).

    Raises:
        InvalidArgumentError: `bits` out of range.
        WeightsError: `weight` holds NaN or infinity.
    """
    check_bits(bits, "weight_bits")
    if not weight.isfinite().all():
        raise WeightsError("weights must be finite, but hold NaN or infinity.")
    rows = weight.detach().flatten(1).float()  # squared errors of bf16 are noise
    scale, zero_point = _nearest_parameters(rows, bits)
    codes = quantize_codes(rows, scale[:, None], zero_point[:, None], bits)
    return QuantizedTensor(codes.to(torch.uint8).view(weight.shape), scale, zero_point, bits)


def _nearest_parameters(
    rows: Float[Tensor, "outputs inputs"], bits: int
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " outputs"]]:
    """Return scale and zero point at each channel's percentile of least squared error."""
    ordered = rows.sort(dim=1).values
    last = rows.shape[1] - 1
    best_error = torch.full_like(rows[:, 0], torch.inf)
    scale, zero_point = torch.ones_like(best_error), torch.zeros_like(best_error)
    for eps in PERCENTILES:
        cut = round(eps / 100 * last)
        s, z = affine_parameters(ordered[:, cut], ordered[:, last - cut], bits)
        error = (fake_quantize(rows, s[:, None], z[:, None], bits) - rows).square().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        scale, zero_point = torch.where(better, s, scale), torch.where(better, z, zero_point)
    return scale, zero_point
