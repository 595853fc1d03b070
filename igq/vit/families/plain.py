"""The plain vision transformer: timm's ViT, DeiT (distilled, III), DINOv2, CLIP, AIMv2, BEiT-3."""

from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtyping import Float
from timm.layers import Attention as TimmAttention
from timm.layers import Mlp, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from igq.layer import Layer
from igq.modules.attention import Attention, join_heads
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


class PlainAttention(Attention):
    """timm's self-attention with slots."""

    def __init__(self, source: Any) -> None:
        super().__init__(source.num_heads, head_dim(source))
        self.qkv, self.proj = source.qkv, source.proj
        self.q_norm, self.k_norm, self.norm = source.q_norm, source.k_norm, source.norm

    def forward(
        self,
        x: Float[Tensor, "images tokens channels"],
        attn_mask: None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "images tokens channels"]:
        """Attend from every token to every token."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = self.q(self.q_norm(q)), self.k(self.k_norm(k)), self.v(v)
        return self.proj(self.norm(join_heads(self.attend(q, k, v))))  # type: ignore[no-any-return]


class Plain(Family):
    """Blocks of one kind and width in a row, each token looking at every other."""

    models: ClassVar[tuple[type[nn.Module], ...]] = (VisionTransformer, VisionTransformerDistilled)
    arguments: ClassVar[Arguments] = {
        "img_size": lambda vit: list(vit.patch_embed.img_size),
        "patch_size": lambda vit: list(vit.patch_embed.patch_size),
        "in_chans": lambda vit: vit.patch_embed.proj.in_channels,
        "num_classes": lambda vit: vit.num_classes,
        "embed_dim": lambda vit: vit.embed_dim,
        "depth": lambda vit: len(vit.blocks),
        "num_heads": lambda vit: vit.blocks[0].attn.num_heads,
        "mlp_ratio": lambda vit: ratio(hidden_width(vit.blocks[0].mlp), vit.embed_dim),
        "dynamic_img_size": lambda vit: vit.dynamic_img_size,
        "global_pool": lambda vit: vit.global_pool,
        "class_token": lambda vit: vit.cls_token is not None,
        "reg_tokens": lambda vit: vit.num_reg_tokens,
        "no_embed_class": lambda vit: vit.no_embed_class,
        "pre_norm": lambda vit: is_there(vit.norm_pre),
        "fc_norm": lambda vit: is_there(vit.fc_norm),
        "init_values": lambda vit: 1.0 if _has_layer_scale(vit.blocks[0]) else None,
        "qk_norm": lambda vit: is_there(vit.blocks[0].attn.q_norm),
        "qkv_bias": lambda vit: vit.blocks[0].attn.qkv.bias is not None,
        "proj_bias": lambda vit: vit.blocks[0].attn.proj.bias is not None,
        "scale_attn_norm": lambda vit: is_there(vit.blocks[0].attn.norm),
        "scale_mlp_norm": lambda vit: is_there(vit.blocks[0].mlp.norm),
    }

    def check(self, model: Any) -> None:
        expect_pooling(model)
        expect("patch_embed", model.patch_embed, PatchEmbed)
        expect("attn_pool", model.attn_pool, type(None))
        for name in _heads(model):
            expect(name, model.get_submodule(name), nn.Linear)
        for i, block in enumerate(model.blocks):
            expect(f"blocks.{i}", block, Block, ResPostBlock)
            expect(f"blocks.{i}.attn", block.attn, TimmAttention)
            gate = getattr(block.attn, "gate", None)
            expect(f"blocks.{i}.attn.gate", gate, type(None))
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
        yield from (head(model, name) for name in _heads(model))

    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        for i, block in enumerate(model.blocks):
            yield f"blocks.{i}.attn", PlainAttention(block.attn)

    def stages(self, model: Any) -> list[Stage]:
        def embed(x: Tensor) -> Tensor:
            return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))  # type: ignore

        def predict(x: Tensor) -> Tensor:
            return model.forward_head(model.norm(x))  # type: ignore

        return [embed, *model.blocks, predict]


def is_pre_norm_block(block: Any) -> bool:
    """Return whether a block with slots is attention and MLP, each after a normalisation, alone.

    It then computes x + proj(attention(qkv(norm1(x)))), and of that x + fc2(gelu(fc1(norm2(x)))).
    """
    if type(block) is not Block or not isinstance(block.attn, PlainAttention):
        return False
    attn, mlp_ = block.attn, block.mlp
    absent = (block.ls1, block.ls2, attn.q_norm, attn.k_norm, attn.norm)
    return (
        all(not is_there(part) for part in absent)
        and type(mlp_) is Mlp
        and not is_there(mlp_.norm)
        and isinstance(mlp_.act, nn.GELU)
        and mlp_.act.approximate == "none"
        and all(isinstance(norm, nn.LayerNorm) for norm in (block.norm1, block.norm2))
    )


def _heads(model: Any) -> tuple[str, ...]:
    return ("head", "head_dist") if isinstance(model, VisionTransformerDistilled) else ("head",)


def _has_layer_scale(block: Any) -> bool:
    return hasattr(getattr(block, "ls1", None), "gamma")
