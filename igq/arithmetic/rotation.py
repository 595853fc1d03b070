"""Linear layers that compute in a rotated basis: the same outputs, inputs without outliers.

y = W x = (W R') (R x) for any orthogonal R. The few channels whose values are huge are spread
over many, so that one scale serves them all (QuaRot: Ashkboos et al., NeurIPS 2024). R is
block-diagonal, of random signs and Hadamard matrices of width B, a power of two that divides the
channels C: N C log2 B additions for N tokens, where a fast transform does it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

SEED = 0
"""Seed of the signs, which are the same for every layer of a width."""
MOST_ROTATED = 64
"""The most channels that are rotated together (our choice)."""


def rotation_width(channels: int) -> int:
    """Return the channels that are rotated together: the largest power of 2 in them, up to 64.

    >>> rotation_width(192), rotation_width(24), rotation_width(7)
    (64, 8, 1)
    """
    return min(channels & -channels, MOST_ROTATED)


def rotate(
    x: Float[Tensor, "*rows channels"], signs: Float[Tensor, " width"]
) -> Float[Tensor, "*rows channels"]:
    """Return R x of each row, by a fast Hadamard transform.

    Every sum and difference is of two numbers, so that other programs can repeat it bit for bit;
    igq/runtime does.

    >>> rotate(torch.tensor([[8.0, 0.0, 0.0, 0.0]]), rotation_signs(4)).abs()
    tensor([[4., 4., 4., 4.]])
    """
    width = len(signs)
    turned = x.unflatten(-1, (-1, width)) * signs
    half = 1
    while half < width:
        first, second = turned.unflatten(-1, (-1, 2, half)).unbind(-2)
        turned = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        half *= 2
    rotated: Tensor = (turned * width**-0.5).flatten(-2)
    return rotated


def rotation_signs(channels: int) -> Float[Tensor, " width"]:
    """Return the random signs that begin a rotation of this number of channels (our choice)."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(0, 2, (rotation_width(channels),), generator=generator) * 2.0 - 1


class RotatedLinear(nn.Linear):
    """A linear layer whose weight is W R' and whose input is rotated.

    >>> source, x = nn.Linear(8, 3), torch.randn(2, 8)
    >>> torch.allclose(RotatedLinear.of(source)(x), source(x), atol=1e-5)
    True
    """

    rotation: Tensor

    @classmethod
    def of(cls, source: nn.Linear) -> "RotatedLinear":
        """Return a rotated copy of the layer."""
        made = cls(source.in_features, source.out_features, bias=False, device="meta")
        weight = source.weight.detach()
        made.register_buffer("rotation", rotation_signs(source.in_features).to(weight), False)
        made.weight = nn.Parameter(rotate(weight, made.rotation), source.weight.requires_grad)
        made.bias = source.bias
        return made.train(source.training)

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Multiply the rotated input with the rotated weight."""
        return super().forward(rotate(x, self.rotation))
