"""Self-attention with a slot for each of its operands.

timm computes softmax inside one fused product, which leaves no module to put a quantizer in. Each
family has a module that takes the place of its attention and computes the same; the shared part
is here.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

OPERANDS = ("q", "k", "softmax", "v")
"""The slots of `Attention`."""


class Attention(nn.Module):
    """The replacement of a family's self-attention: slots for q, k, v and the softmax map."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.q: nn.Module = nn.Identity()
        self.k: nn.Module = nn.Identity()
        self.v: nn.Module = nn.Identity()
        self.softmax: nn.Module = nn.Identity()
        self.bfloat16_products = False
        """Whether the product with v is in bfloat16; scores need more digits than it has."""

    def attend(
        self,
        q: Float[Tensor, "images heads *windows queries width"],
        k: Float[Tensor, "images heads *windows keys width"],
        v: Float[Tensor, "images heads *windows keys width"],
        bias: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "images heads *windows queries width"]:
        """Return each query's mean of the values; `bias` is added to the scores."""
        if isinstance(self.softmax, nn.Identity) and not self.bfloat16_products:
            return F.scaled_dot_product_attention(q, k, v, bias)
        scores = q * self.head_dim**-0.5 @ k.mT
        if bias is not None:
            scores = scores + bias
        weights = self.softmax(scores.softmax(-1))
        if self.bfloat16_products:
            return (weights.bfloat16() @ v.bfloat16()).float()  # type: ignore[no-any-return]
        return weights @ v  # type: ignore[no-any-return]


def split_heads(
    x: Float[Tensor, "images tokens channels"], num_heads: int
) -> Float[Tensor, "images heads tokens width"]:
    """Return the channels of each head apart."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def join_heads(
    x: Float[Tensor, "images heads tokens width"],
) -> Float[Tensor, "images tokens channels"]:
    """Return the tokens of `split_heads` as they were."""
    return x.transpose(1, 2).flatten(2)
