"""Weights rounded so that a layer's outputs, not its weights, change least.

Given the Gram matrix H = sum_t w_t x_t x_t' of a layer's inputs, each token t weighted by how much
the predictions depend on it, the error of an output channel with weights v rounded to v^ is
(v - v^)' H (v - v^). Bounds are chosen for it, weights are rounded one input after the other with
the error of each made up for by those that follow (GPTQ: Frantar et al., ICLR 2023), and the scale
is fitted to the codes at last.
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
from igq.arithmetic.weights import quantize_weight

DAMPING = 0.1
"""The number added to the Gram matrix's diagonal, as a share of its mean."""
SHRINKAGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
"""Shares of a channel's range that are tried as bounds."""
INPUTS_TOGETHER = 64
"""Inputs whose errors are passed on in one product, so that rounding is quick."""


def round_weight(
    weight: Float[Tensor, "outputs inputs"], gram: Float[Tensor, "inputs inputs"], bits: int
) -> QuantizedTensor:
    """Quantize a weight with the least `output_error`; never worse than the nearest codes.

    Raises:
        InvalidArgumentError: `bits` out of range.
        WeightsError: `weight` holds NaN or infinity.

    >>> weight, gram = torch.tensor([[0.4, 0.4, 1.5, -1.5]]), torch.ones(4, 4) + torch.eye(4) / 10
    >>> [output_error(weight, w, gram).item() < 0.2
    ...  for w in (quantize_weight(weight, 2), round_weight(weight, gram, 2))]
    [False, True]
    """
    check_bits(bits, "weight_bits")
    nearest = quantize_weight(weight, bits)
    wanted, gram = weight.detach().double(), gram.double()
    mean = gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny)
    damped = gram / mean + DAMPING * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    scale, zero_point = _bounds(wanted, damped, nearest)
    codes = _codes(wanted, damped, scale, zero_point, bits)
    levels = codes - zero_point
    weighted = levels @ damped
    norm = (weighted * levels).sum(1, keepdim=True)
    fitted = (weighted * wanted).sum(1, keepdim=True) / norm
    scale = torch.where(fitted > 0, fitted, scale)  # NaN where every level is 0
    rounded = QuantizedTensor(
        codes.to(torch.uint8), scale[:, 0].float(), zero_point[:, 0].float(), bits
    )
    return _better(wanted, damped, rounded, nearest)


def output_error(
    weight: Float[Tensor, "outputs inputs"],
    quantized: QuantizedTensor,
    gram: Float[Tensor, "inputs inputs"],
) -> Float[Tensor, " outputs"]:
    """Return the weighted squared error of each output channel."""
    error = quantized.dequantize().double() - weight.double()
    return ((error @ gram.double()) * error).sum(1)


def _bounds(wanted: Tensor, gram: Tensor, nearest: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of each channel (outputs, 1) of least error of nearest codes."""
    scale, zero_point = nearest.scale.double()[:, None], nearest.zero_point.double()[:, None]
    best = torch.full_like(scale, torch.inf)
    lower, upper = wanted.amin(1, keepdim=True), wanted.amax(1, keepdim=True)
    tried = (affine_parameters(lower * s, upper * s, nearest.bits) for s in SHRINKAGES)
    for s, z in ((scale, zero_point), *tried):
        error = fake_quantize(wanted, s, z, nearest.bits) - wanted
        total = ((error @ gram) * error).sum(1, keepdim=True)
        better = total < best
        best = torch.where(better, total, best)
        scale, zero_point = torch.where(better, s, scale), torch.where(better, z, zero_point)
    return scale, zero_point


def _codes(wanted: Tensor, gram: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Round input by input, from the one that matters most, and pass errors on."""
    order = gram.diagonal().argsort(descending=True)
    left, gram = wanted[:, order], gram[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(left)
    for first in range(0, len(gram), INPUTS_TOGETHER):
        last = min(first + INPUTS_TOGETHER, len(gram))
        errors = torch.empty_like(left[:, first:last])
        for i in range(first, last):
            column = left[:, i : i + 1]
            code = quantize_codes(column, scale, zero_point, bits)
            error = (column - (code - zero_point) * scale) / factor[i, i]
            left[:, i:last] -= error @ factor[i : i + 1, i:last]
            codes[:, i : i + 1], errors[:, i - first : i - first + 1] = code, error
        left[:, last:] -= errors @ factor[first:last, last:]
    ordered = torch.empty_like(codes)
    ordered[:, order] = codes
    return ordered


def _better(
    weight: Tensor, gram: Tensor, rounded: QuantizedTensor, nearest: QuantizedTensor
) -> QuantizedTensor:
    """Return, for each output channel, the candidate with the smaller error."""
    keep = output_error(weight, rounded, gram) <= output_error(weight, nearest, gram)
    return QuantizedTensor(
        torch.where(keep[:, None], rounded.codes, nearest.codes),
        torch.where(keep, rounded.scale, nearest.scale),
        torch.where(keep, rounded.zero_point, nearest.zero_point),
        nearest.bits,
    )
