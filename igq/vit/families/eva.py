"""EVA, EVA-02, DINOv3, rotary ViTs: queries and keys are turned by their position.

q and k are quantized after the rotation: as they enter their product.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.layers import AttentionRope, GluMlp, PatchEmbed, SwiGLU, apply_rot_embed_cat
from timm.models.eva import Eva as TimmEva
from timm.models.eva import EvaAttention as TimmAttention
from timm.models.eva import EvaBlock, EvaBlockPostNorm
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


class EvaAttention(Attention):
    """Self-attention with rotary positions and slots; q, k and v come from one product."""

    k_bias: Tensor | None

    def __init__(self, source: Any) -> None:
        super().__init__(source.num_heads, head_dim(source))
        self.num_prefix_tokens = source.num_prefix_tokens
        self.rotate_half = getattr(source, "rotate_half", False)
        self.num_kv_heads = getattr(source, "num_kv_heads", source.num_heads)
        self.q_norm, self.k_norm, self.norm = source.q_norm, source.k_norm, source.norm
        self.proj = source.proj
        self._take_projections(source)

    def _take_projections(self, source: Any) -> None:
        self.qkv = source.qkv
        self.q_bias: Tensor | None = getattr(source, "q_bias", None)
        self.v_bias: Tensor | None = getattr(source, "v_bias", None)
        self.register_buffer("k_bias", getattr(source, "k_bias", None), persistent=False)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        qkv = self.qkv(x)
        if self.q_bias is not None and self.k_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat((self.q_bias, self.k_bias, self.v_bias))
        return qkv.chunk(3, dim=-1)  # type: ignore[no-any-return]

    def forward(
        self,
        x: Float[Tensor, "images tokens channels"],
        rope: Float[Tensor, "..."] | None = None,
        attn_mask: None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "images tokens channels"]:
        """Attend from every token to every token; heads may share keys and values."""
        q, k, v = self._project(x)
        q = self.q(self._rotate(self.q_norm(split_heads(q, self.num_heads)), rope))
        k = self.k(self._rotate(self.k_norm(split_heads(k, self.num_kv_heads)), rope))
        v = self.v(split_heads(v, self.num_kv_heads))
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1) for t in (k, v))
        return self.proj(self.norm(join_heads(self.attend(q, k, v))))  # type: ignore[no-any-return]

    def _rotate(
        self,
        x: Float[Tensor, "images heads tokens width"],
        rope: Float[Tensor, "..."] | None,
    ) -> Float[Tensor, "images heads tokens width"]:
        if rope is None:
            return x
        prefix, patches = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        turned = apply_rot_embed_cat(patches, rope, half=self.rotate_half)
        return torch.cat((prefix, turned), dim=2).type_as(x)


class SplitEvaAttention(EvaAttention):
    """The same with a linear layer each for q, k and v."""

    def _take_projections(self, source: Any) -> None:
        self.q_proj, self.k_proj, self.v_proj = source.q_proj, source.k_proj, source.v_proj

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class Eva(Family):
    """Blocks of one kind and width in a row, to each of which the positions are told."""

    models: ClassVar[tuple[type[nn.Module], ...]] = (TimmEva,)
    arguments: ClassVar[Arguments] = {
        "img_size": lambda eva: list(eva.patch_embed.img_size),
        "patch_size": lambda eva: list(eva.patch_embed.patch_size),
        "in_chans": lambda eva: eva.patch_embed.proj.in_channels,
        "num_classes": lambda eva: eva.num_classes,
        "embed_dim": lambda eva: eva.embed_dim,
        "depth": lambda eva: len(eva.blocks),
        "num_heads": lambda eva: eva.blocks[0].attn.num_heads,
        "num_kv_heads": lambda eva: _num_kv_heads(eva),
        "qkv_bias": lambda eva: _has_bias(eva.blocks[0].attn),
        "qkv_fused": lambda eva: not _is_split(eva.blocks[0].attn),
        "qk_norm": lambda eva: is_there(eva.blocks[0].attn.q_norm),
        "scale_attn_inner": lambda eva: is_there(eva.blocks[0].attn.norm),
        "mlp_ratio": lambda eva: _mlp_ratio(eva.blocks[0].mlp, eva.embed_dim),
        "swiglu_mlp": lambda eva: isinstance(eva.blocks[0].mlp, (SwiGLU, GluMlp)),
        "scale_mlp": lambda eva: is_there(eva.blocks[0].mlp.norm),
        "init_values": lambda eva: None if getattr(eva.blocks[0], "gamma_1", None) is None else 1.0,
        "class_token": lambda eva: eva.cls_token is not None,
        "num_reg_tokens": lambda eva: 0 if eva.reg_token is None else eva.reg_token.shape[1],
        "no_embed_class": lambda eva: eva.no_embed_class,
        "use_abs_pos_emb": lambda eva: eva.pos_embed is not None,
        "use_rot_pos_emb": lambda eva: eva.rope is not None,
        "use_pre_transformer_norm": lambda eva: is_there(eva.norm_pre),
        "use_post_transformer_norm": lambda eva: is_there(eva.norm),
        "use_fc_norm": lambda eva: is_there(eva.fc_norm),
        "dynamic_img_size": lambda eva: eva.dynamic_img_size,
        "global_pool": lambda eva: eva.global_pool,
    }

    def check(self, model: Any) -> None:
        expect_pooling(model)
        expect("patch_embed", model.patch_embed, PatchEmbed)
        expect("attn_pool", model.attn_pool, type(None))
        expect("head", model.head, nn.Linear)
        for i, block in enumerate(model.blocks):
            expect(f"blocks.{i}", block, EvaBlock, EvaBlockPostNorm)
            expect(f"blocks.{i}.attn", block.attn, TimmAttention, AttentionRope)
            gate = getattr(block.attn, "gate", None)
            expect(f"blocks.{i}.attn.gate", gate, type(None))
            expect(f"blocks.{i}.mlp", block.mlp, *MLPS)

    def layers(self, model: Any) -> Iterator[Layer]:
        tokens = model.patch_embed.num_patches + model.num_prefix_tokens
        yield embedding(model)
        for i, block in enumerate(model.blocks):
            name, attn = f"blocks.{i}.attn", block.attn
            projections = ("q_proj", "k_proj", "v_proj") if _is_split(attn) else ("qkv",)
            yield from (linear(model, f"{name}.{one}", tokens) for one in projections)
            heads, kv_heads = attn.num_heads, _kv_heads(attn)
            yield from operands(name, heads, head_dim(attn), tokens, tokens, kv_heads)
            yield linear(model, f"{name}.proj", tokens)
            yield from mlp(model, f"blocks.{i}.mlp", tokens)
        yield head(model, "head")

    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        for i, block in enumerate(model.blocks):
            made = SplitEvaAttention if _is_split(block.attn) else EvaAttention
            yield f"blocks.{i}.attn", made(block.attn)

    def stages(self, model: Any) -> list[Stage]:
        def embed(x: Tensor) -> Tensor:
            return model.norm_pre(model._pos_embed(model.patch_embed(x))[0])  # type: ignore

        def predict(x: Tensor) -> Tensor:
            return model.forward_head(model.norm(x))  # type: ignore

        ropes = _ropes(model)
        blocks = (partial(b, rope=r) for b, r in zip(model.blocks, ropes, strict=True))
        return [embed, *blocks, predict]


def _ropes(model: Any) -> list[Tensor | None]:
    """Return the rotation of each block, for images of the model's own size."""
    if model.rope is None:
        return [None] * len(model.blocks)
    if hasattr(model.rope, "feat_shape") and not model.dynamic_img_size:
        rope = model.rope.get_embed()
    else:
        rope = model.rope.get_embed(shape=model.patch_embed.grid_size)
    return list(rope) if model.rope_mixed else [rope] * len(model.blocks)


def _is_split(attn: Any) -> bool:
    return getattr(attn, "q_proj", None) is not None


def _has_bias(attn: Any) -> bool:
    if _is_split(attn):
        return attn.q_proj.bias is not None
    return attn.q_bias is not None if attn.qkv.bias is None else True


def _kv_heads(attn: Any) -> int:
    return getattr(attn, "num_kv_heads", attn.num_heads)  # type: ignore[no-any-return]


def _num_kv_heads(model: Any) -> list[int] | None:
    """Return the heads of keys and values in each block, where they are fewer."""
    heads = [_kv_heads(block.attn) for block in model.blocks]
    return None if heads == [block.attn.num_heads for block in model.blocks] else heads


def _mlp_ratio(mlp: Any, width: int) -> float:
    hidden = hidden_width(mlp)
    return ratio(hidden // 2 if isinstance(mlp, GluMlp) else hidden, width)
