"""Swin, the first: attention within windows that shift from block to block, ever wider stages.

timm folds windows into the batch. Ranges are taken image by image, so that here the windows of an
image are unfolded again wherever an activation passes a slot. Tokens that pad an image to whole
windows are part of what attention multiplies, and are counted.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from jaxtyping import Float
from timm.layers import ClassifierHead, Mlp, PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from torch import Tensor, nn

from igq.errors import UnsupportedModelError
from igq.layer import Layer
from igq.modules.attention import Attention, join_heads
from igq.vit.families.base import (
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


class SwinAttention(Attention):
    """timm's attention within windows, with slots that see the windows of an image together."""

    relative_position_index: Tensor

    def __init__(self, source: Any, windows: int) -> None:
        super().__init__(source.num_heads, head_dim(source))
        self.windows, self.window_area = windows, source.window_area
        self.qkv, self.proj = source.qkv, source.proj
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer(
            "relative_position_index", source.relative_position_index, persistent=False
        )

    def forward(
        self,
        x: Float[Tensor, "folded area channels"],
        mask: Float[Tensor, "windows area area"] | None = None,
    ) -> Float[Tensor, "folded area channels"]:
        """Attend from every token to those of its window that `mask` does not separate.

        The windows of all images are folded into the first axis, image by image.
        """
        qkv = self.qkv(x.unflatten(0, (-1, self.windows)).flatten(1, 2))
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k, v = (self._by_window(t) for t in (self.q(q), self.k(k), self.v(v)))
        y = self.attend(q, k, v, self._bias(mask)).flatten(2, 3)
        y = self.proj(join_heads(y))
        return y.unflatten(1, (self.windows, -1)).flatten(0, 1)  # type: ignore[no-any-return]

    def _by_window(
        self, x: Float[Tensor, "images heads tokens width"]
    ) -> Float[Tensor, "images heads windows area width"]:
        return x.unflatten(2, (self.windows, self.window_area))  # type: ignore[no-any-return]

    def _bias(
        self, mask: Float[Tensor, "windows area area"] | None
    ) -> Float[Tensor, "heads windows area area"]:
        table = self.relative_position_bias_table[self.relative_position_index]
        bias = table.permute(2, 0, 1)[:, None]
        return bias if mask is None else bias + mask  # type: ignore[no-any-return]


class Swin(Family):
    """Stages of blocks, each stage with a quarter of the tokens of the one before."""

    models: ClassVar[tuple[type[nn.Module], ...]] = (SwinTransformer,)
    arguments: ClassVar[Arguments] = {
        "img_size": lambda swin: list(swin.patch_embed.img_size),
        "patch_size": lambda swin: list(swin.patch_embed.patch_size),
        "in_chans": lambda swin: swin.patch_embed.proj.in_channels,
        "num_classes": lambda swin: swin.num_classes,
        "embed_dim": lambda swin: swin.embed_dim,
        "depths": lambda swin: [len(stage.blocks) for stage in swin.layers],
        "num_heads": lambda swin: [stage.blocks[0].attn.num_heads for stage in swin.layers],
        "window_size": lambda swin: [list(stage.blocks[0].window_size) for stage in swin.layers],
        "always_partition": lambda swin: swin.layers[0].blocks[0].always_partition,
        "mlp_ratio": lambda swin: [_mlp_ratio(stage.blocks[0]) for stage in swin.layers],
        "qkv_bias": lambda swin: swin.layers[0].blocks[0].attn.qkv.bias is not None,
        "global_pool": lambda swin: swin.global_pool,
    }

    def check(self, model: Any) -> None:
        if not model.patch_embed.strict_img_size:
            raise UnsupportedModelError(
                "`strict_img_size` must be True for a Swin, as the windows of an image are told "
                "apart by their number, but is False."
            )
        expect_pooling(model)
        expect("patch_embed", model.patch_embed, PatchEmbed)
        expect("head", model.head, ClassifierHead)
        expect("head.fc", model.head.fc, nn.Linear)
        for i, stage in enumerate(model.layers):
            name = f"layers.{i}"
            expect(name, stage, SwinTransformerStage)
            expect(f"{name}.downsample", stage.downsample, PatchMerging, nn.Identity)
            for j, block in enumerate(stage.blocks):
                expect(f"{name}.blocks.{j}", block, SwinTransformerBlock)
                expect(f"{name}.blocks.{j}.attn", block.attn, WindowAttention)
                expect(f"{name}.blocks.{j}.mlp", block.mlp, Mlp)

    def layers(self, model: Any) -> Iterator[Layer]:
        yield embedding(model)
        for i, stage in enumerate(model.layers):
            if is_there(stage.downsample):
                name = f"layers.{i}.downsample.reduction"
                yield linear(model, name, math.prod(stage.output_resolution))
            for j, block in enumerate(stage.blocks):
                yield from _block(model, f"layers.{i}.blocks.{j}", block)
        yield head(model, "head.fc")

    def attentions(self, model: Any) -> Iterator[tuple[str, Attention]]:
        for i, stage in enumerate(model.layers):
            for j, block in enumerate(stage.blocks):
                yield f"layers.{i}.blocks.{j}.attn", SwinAttention(block.attn, _windows(block))

    def stages(self, model: Any) -> list[Stage]:
        def predict(x: Tensor) -> Tensor:
            return model.head(model.norm(x))  # type: ignore

        return [model.patch_embed, *model.layers, predict]


def _block(model: Any, name: str, block: Any) -> Iterator[Layer]:
    tokens, area = _windows(block) * block.window_area, block.window_area
    attn = block.attn
    yield linear(model, f"{name}.attn.qkv", tokens)
    yield from operands(f"{name}.attn", attn.num_heads, head_dim(attn), tokens, area)
    yield linear(model, f"{name}.attn.proj", tokens)
    yield from mlp(model, f"{name}.mlp", math.prod(block.input_resolution))


def _windows(block: Any) -> int:
    """Return the number of windows of an image, partial ones included."""
    sizes = zip(block.input_resolution, block.window_size, strict=True)
    return math.prod(-(-tokens // side) for tokens, side in sizes)


def _mlp_ratio(block: Any) -> float:
    return ratio(hidden_width(block.mlp), block.dim)
