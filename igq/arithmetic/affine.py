"""Uniform affine quantization of given bounds (Eq. 1-3).

    scale = (upper - lower) / (2^bits - 1)                              Eq. 1
    zero_point = clip(round(-lower / scale), 0, 2^bits - 1)             Eq. 2
    x_q = clip(round(x / scale) + zero_point, 0, 2^bits - 1)            Eq. 2
    x^ = scale (x_q - zero_point)                                       Eq. 3

Bounds are first widened to hold 0 (our choice): Eq. 2 clips the zero point, so that bounds
which leave 0 out would represent another interval than the one given.
"""

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from igq.errors import InvalidArgumentError

MIN_BITS, MAX_BITS = 2, 8
SMALLEST_SCALE = 1e-12
"""Where bounds are (0, 0) any scale represents them; this one divides safely."""
Bits = int | Float[Tensor, ""]
"""A number of bits; a tensor where it may change without compiling anew."""


def check_bits(bits: int, name: str = "bits") -> int:
    """Return `bits` if it can be used.

    Raises:
        InvalidArgumentError: `bits` is not between 2 and 8.

    >>> check_bits(4)
    4
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise InvalidArgumentError(
            f"`{name}` must be between {MIN_BITS} and {MAX_BITS}, but got {name}={bits}."
        )
    return bits


def affine_parameters(
    lower: Float[Tensor, "*shape"], upper: Float[Tensor, "*shape"], bits: Bits
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Scale and zero point of bounds (Eq. 1 and 2); the zero point is a whole number.

    >>> import torch
    >>> scale, zero_point = affine_parameters(torch.tensor(-1.0), torch.tensor(2.0), bits=2)
    >>> scale.item(), zero_point.item()
    (1.0, 1.0)
    """
    levels = 2**bits - 1
    lower, upper = lower.clamp(max=0), upper.clamp(min=0)
    scale = ((upper - lower) / levels).clamp(min=SMALLEST_SCALE)
    return scale, (-lower / scale).round().clamp(min=0).clamp(max=levels)


def quantize_codes(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, "..."],
    zero_point: Float[Tensor, "..."],
    bits: Bits,
) -> Float[Tensor, "..."]:
    """Return the codes x_q of values, as whole numbers (Eq. 2)."""
    # in place on the quotient: memory traffic is what this costs
    return (x / scale).round_().add_(zero_point).clamp_(min=0).clamp_(max=2**bits - 1)


def fake_quantize(
    x: Float[Tensor, "..."],
    scale: Float[Tensor, "..."],
    zero_point: Float[Tensor, "..."],
    bits: Bits,
) -> Float[Tensor, "..."]:
    """Quantize and dequantize (Eq. 2 and 3); scale and zero point broadcast to `x`.

    >>> import torch
    >>> scale, zero_point = affine_parameters(torch.tensor(-1.0), torch.tensor(2.0), bits=2)
    >>> fake_quantize(torch.tensor([-3.0, 0.4, 1.6]), scale, zero_point, bits=2).tolist()
    [-1.0, 0.0, 2.0]
    """
    return quantize_codes(x, scale, zero_point, bits).sub_(zero_point).mul_(scale)


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A weight as codes, with one scale and zero point for each output channel (axis 0)."""

    codes: UInt8[Tensor, "outputs ..."]
    scale: Float[Tensor, " outputs"]
    zero_point: Float[Tensor, " outputs"]
    bits: int

    def dequantize(self) -> Float[Tensor, "outputs ..."]:
        """Return the values that the codes stand for (Eq. 3)."""
        scale, zero_point = (
            t.view(-1, *[1] * (self.codes.ndim - 1)) for t in (self.scale, self.zero_point)
        )
        return (self.codes.to(scale.dtype) - zero_point) * scale
