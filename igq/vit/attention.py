"""Self-attention with a slot for each of its operands.

timm computes softmax inside one fused product, so that there is no module to put a quantizer
in; this module takes its place.
"""

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Attention as TimmAttention
from torch import Tensor, nn

OPERANDS = ("q", "k", "softmax", "v")
"""The slots of `Attention`."""


class Attention(nn.Module):
    """timm's self-attention with slots for q, k, v and the softmax map."""

    def __init__(self, source: TimmAttention, qkv: nn.Module, proj: nn.Module) -> None:
        super().__init__()
        self.num_heads, self.head_dim = source.num_heads, source.head_dim
        self.qkv, self.proj = qkv, proj
        self.q_norm, self.k_norm = source.q_norm, source.k_norm
        self.q: nn.Module = nn.Identity()
        self.k: nn.Module = nn.Identity()
        self.v: nn.Module = nn.Identity()
        self.softmax: nn.Module = nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "images tokens channels"],
        attn_mask: None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "images tokens channels"]:
        """Attention of every token to every token."""
        images, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(images, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = self.q(self.q_norm(q)), self.k(self.k_norm(k)), self.v(v)
        if isinstance(self.softmax, nn.Identity):
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = self.softmax((q * self.head_dim**-0.5 @ k.mT).softmax(-1)) @ v
        y = y.transpose(1, 2).reshape(images, tokens, self.num_heads * self.head_dim)
        return self.proj(y)  # type: ignore[no-any-return]
