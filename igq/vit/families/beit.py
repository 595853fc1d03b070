"""BEiT and BEiT v2: no bias for k, and a bias of the scores by relative position."""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.layers import PatchEmbed, SwiGLU
from timm.models.beit import Attention as TimmAttention
from timm.models.beit import Beit as TimmBeit
from timm.models.beit import Block
from torch import Tensor, nn

from igq.layer import Layer
from igq.modules.attention import Attention, join_heads, split_heads
from igq.vit.families.base import (
    MLPS,
    Arguments,
    Family,
    Stage,
    embedding,
    expect,
    expect_pooling,
    head,
    head_dim,
    hidden_width,
    is_there,
    linear,
    mlp,
    operands,
    ratio,
)


class BeitAttention(Attention):
    """BEiT's self-attention with slots."""

    k_bias: Tensor | None
    relative_position_index: Tensor | None

    def __init__(self, source: Any) -> None:
        super().__init__(source.num_heads, head_dim(source))
        self.qkv, self.proj = source.qkv, source.proj
        self.q_bias, self.v_bias = source.q_bias, source.v_bias
        self.register_buffer("k_bias", source.k_bias, persistent=False)
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer(
            "relative_position_index", source.relative_position_index, persistent=False
        )

    def forward(
        self,
        x: Float[Tensor, "images tokens channels"],
        shared_rel_pos_bias: Float[Tensor, "heads tokens tokens"] | None = None,
    ) -> Float[Tensor, "images tokens channels"]:
        """Attend from every token to every token."""
        qkv = self.qkv(x)
        if self.k_bias is not None:
            qkv = qkv + torch.cat((self.q_bias, self.k_bias, self.v_bias))
        q, k, v = (split_heads(t, self.num_heads) for t in qkv.chunk(3, dim=-1))
        q, k, v = self.q(q), self.k(k), self.v(v)
        y = self.attend(q, k, v, self._bias(shared_rel_pos_bias))
        return self.proj(join_heads(y))  # type: ignore[no-any-return]

    def _bias(
        self, shared: Float[Tensor, "heads tokens tokens"] | None
    ) -> Float[Tensor, "heads tokens tokens"] | None:
        if self.relative_position_bias_table is None:
            return shared
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        return bias if shared is None else bias + shared  # type: ignore[no-any-return]


class Beit(Family):
    """Blocks of one kind and width in a row; a bias may be shared by all of them."""

    models: ClassVar[tuple[type[nn.Module], ...]] = (TimmBeit,)
    arguments: ClassVar[Arguments] = {
        "img_size": lambda beit: list(beit.patch_embed.img_size),
        "patch_size": lambda beit: list(beit.patch_embed.patch_size),
        "in_chans": lambda beit: beit.patch_embed.proj.in_channels,
        "num_classes": lambda beit: beit.num_classes,
        "embed_dim": lambda beit: beit.embed_dim,
        "depth": lambda beit: len(beit.blocks),
        "num_heads": lambda beit: beit.blocks[0].attn.num_heads,
        "mlp_ratio": lambda beit: ratio(hidden_width(beit.blocks[0].mlp), beit.embed_dim),
        "swiglu_mlp": lambda beit: isinstance(beit.blocks[0].mlp, SwiGLU),
        "scale_mlp": lambda beit: is_there(beit.blocks[0].mlp.norm),
        "qkv_bias": lambda beit: beit.blocks[0].attn.q_bias is not None,
        "init_values": lambda beit: None if beit.blocks[0].gamma_1 is None else 1.0,
        "use_abs_pos_emb": lambda beit: beit.pos_embed is not None,
        "use_rel_pos_bias": lambda beit: (
            beit.blocks[0].attn.relative_position_bias_table is not None
        ),
        "use_shared_rel_pos_bias": lambda beit: beit.rel_pos_bias is not None,
        "use_fc_norm": lambda beit: is_there(beit.fc_norm),
        "global_pool": lambda beit: beit.global_pool,
    }

    def check(self, model: Any) -> None:
        expect_pooling(model)
        expect("patch_embed", model.patch_embed, PatchEmbed)
        expect("head", model.head, nn.Linear)
        for i, block in enumerate(model.blocks):
            expect(f"blocks.{i}", block, Block)
            expect(f"blocks.{i}.attn", block.attn, TimmAttention)
            expect(f"blocks.{i}.mlp", block.mlp, *MLPS)

    def layers(self, model: Any) -> Iterator[Layer]:
        tokens = model.patch_embed.num_patches + model.num_prefix_tokens
        yield embedding(model)
        for i, block in enumerate(model.blocks):
            name, attn = f"blocks.{i}.attn", block.attn
            yield linear(model, f"{name}.qkv", tokens)
            yield from operands(name, attn.num_heads, head_dim(attn), tokens, tokens)
            yield linear(model, f"{name}.proj", tokens)
            yield from mlp(model, f"blocks.{i}.mlp", tokens)
        yield head(model, "head")

    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        for i, block in enumerate(model.blocks):
            yield f"blocks.{i}.attn", BeitAttention(block.attn)

    def stages(self, model: Any) -> list[Stage]:
        def embed(x: Tensor) -> Tensor:
            x = model.patch_embed(x)
            x = torch.cat((model.cls_token.expand(len(x), -1, -1), x), dim=1)
            return x if model.pos_embed is None else x + model.pos_embed

        def predict(x: Tensor) -> Tensor:
            return model.forward_head(model.norm(x))  # type: ignore

        bias = None if model.rel_pos_bias is None else model.rel_pos_bias()
        blocks = (partial(block, shared_rel_pos_bias=bias) for block in model.blocks)
        return [embed, *blocks, predict]
