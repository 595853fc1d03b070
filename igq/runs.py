"""Channels of a token, or keys of a softmax row, in groups side by side with ranges of their own.

What a product sums over is `num_cells` cells of equal width, of which the last may be shorter. G
groups are runs of ceil(cells / G) cells, and again the last may be shorter. Each group of each row
of each image is quantized with its own minimum and maximum: there is nothing to fit, and a huge
value widens the steps of its own group alone. As many partial sums as groups are added in floating
point, as for the groups of the paper (Table 1).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from igq.affine import Bits, affine_parameters, fake_quantize
from igq.layers import num_cells


def fake_quantize_runs(
    x: Float[Tensor, "*rows length"], num_groups: int | Int[Tensor, ""], bits: Bits
) -> Float[Tensor, "*rows length"]:
    """Fake-quantize each group of each row with its own range (Eq. 1-3).

    Both numbers may be tensors, where they may change without compiling anew.

    >>> x = torch.tensor([[0.9, 0.0, 90.0, 40.0]])
    >>> fake_quantize_runs(x, num_groups=2, bits=2).tolist()
    [[0.8999999761581421, 0.0, 90.0, 30.0]]
    """
    length = x.shape[-1]
    count = num_cells(length)
    # bounds are widened to hold 0 in any case: a start of 0, or filling up with 0, changes nothing
    cells = F.pad(x, (0, -length % count)).unflatten(-1, (count, -1))
    run = torch.arange(count, device=x.device) // ((count + num_groups - 1) // num_groups)
    low, high = _extremes(cells)
    index = run.expand(low.shape)
    start = torch.zeros_like(low)
    lower = start.scatter_reduce(-1, index, low, "amin").gather(-1, index)
    upper = start.scatter_reduce(-1, index, high, "amax").gather(-1, index)
    scale, zero_point = affine_parameters(lower[..., None], upper[..., None], bits)
    return fake_quantize(cells, scale, zero_point, bits).flatten(-2)[..., :length]


def _extremes(
    x: Float[Tensor, "*rows cells width"],
) -> tuple[Float[Tensor, "*rows cells"], Float[Tensor, "*rows cells"]]:
    """Minimum and maximum of each cell; by halves, which compiles to two thirds of the time."""
    low = high = x
    while low.shape[-1] % 2 == 0:
        half = low.shape[-1] // 2
        low = low[..., :half].minimum(low[..., half:])
        high = high[..., :half].maximum(high[..., half:])
    return low.amin(-1), high.amax(-1)
