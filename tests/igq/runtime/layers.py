"""Layers of every kind that the runtime computes, drawn at random, and their panels."""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

from igq.arithmetic.rotation import rotate, rotation_signs
from igq.arithmetic.weights import quantize_weight
from igq.grouping import (
    HEAD_CHANNELS,
    HEAD_TOKENS,
    Channels,
    ContiguousChannels,
    ContiguousKeys,
    Quantizer,
    Rows,
    SliceQuantizer,
)
from igq.runtime.panels import LinearLayer, attention_panel
from igq.scheme import Assignment


@dataclass(frozen=True, eq=False)
class Drawn:
    """A layer, its input, and the input of its quantizer."""

    layer: LinearLayer
    x: Tensor
    seen: Tensor
    residual: Tensor | None


def draw_layer(seed: int) -> Drawn:
    """Return a layer of any bits, groups and shape, rotated or not."""
    draw, generator = Random(seed), torch.Generator().manual_seed(seed)
    inputs, outputs = draw.choice([4, 7, 12, 24, 48, 96, 192]), draw.choice([3, 10, 16, 48, 50])
    images, tokens = draw.choice([1, 2, 3]), draw.choice([1, 5, 16, 17, 33])
    spread = torch.randn(inputs, generator=generator).mul(2).exp()
    x = torch.randn(images, tokens, inputs, generator=generator) * spread
    signs = rotation_signs(inputs) if draw.random() < 0.4 else None
    seen = x if signs is None else rotate(x, signs)
    weight = torch.randn(outputs, inputs, generator=generator)
    residual = torch.randn(images, tokens, outputs, generator=generator)
    layer = LinearLayer(
        quantize_weight(weight, draw.choice([2, 3, 4, 5, 8])),
        _quantizer(draw, seen),
        torch.randn(outputs, generator=generator) if draw.random() < 0.7 else None,
        signs,
        gelu=draw.random() < 0.3,
    )
    return Drawn(layer, x, seen, residual if draw.random() < 0.3 else None)


def _quantizer(draw: Random, x: Tensor) -> Quantizer:
    bits, groups = draw.choice([2, 3, 4, 6, 7, 8]), draw.choice([1, 2, 3, 4, 8, 24])
    if draw.random() < 0.5:
        return SliceQuantizer(bits, ContiguousChannels(), groups)
    grouping = Channels(draw.choice(list(Assignment)))
    ranges = grouping.ranges(1.1 * x).reshape(len(x), -1, 2)
    return grouping.fit(ranges, (groups,), bits)[groups]


@dataclass(frozen=True, eq=False)
class DrawnAttention:
    """An attention's panel, its input, and the softmax map with its quantizer."""

    panel: Tensor
    qkv: Tensor
    softmax: Tensor
    quantizer: Quantizer


def draw_attention(seed: int) -> DrawnAttention:
    """Return an attention of any bits, groups and shape."""
    draw, generator = Random(seed), torch.Generator().manual_seed(seed)
    images, heads = draw.choice([1, 2]), draw.choice([1, 2, 3])
    width, tokens = draw.choice([4, 5, 8, 16, 24, 64]), draw.choice([1, 2, 7, 16, 17, 50, 197])
    qkv = 2 * torch.randn(images, tokens, 3 * heads * width, generator=generator)
    q, k, _ = qkv.unflatten(-1, (3, heads, width)).permute(2, 0, 3, 1, 4).unbind(0)
    softmax = (q * width**-0.5 @ k.mT).softmax(-1)
    bits, groups = draw.choice([2, 4, 6, 8]), draw.choice([1, 2, 4, 8])
    quantizer: Quantizer = SliceQuantizer(bits, ContiguousKeys(), groups)
    if draw.random() < 0.5:
        rows = Rows(unit=draw.random() < 0.5)
        ranges = rows.ranges(softmax).reshape(images, -1, 2)
        quantizer = rows.fit(ranges, (groups,), bits)[groups]
    token = SliceQuantizer(draw.choice([2, 4, 7, 8]), HEAD_TOKENS)
    value = SliceQuantizer(draw.choice([2, 4, 8]), HEAD_CHANNELS)
    panel = attention_panel(heads, width, (token, token, value, quantizer))
    return DrawnAttention(panel, qkv, softmax, quantizer)


def normalised(outputs: int) -> nn.LayerNorm:
    """Return a normalisation that is not the identity."""
    norm = nn.LayerNorm(outputs, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(torch.linspace(0.5, 2, outputs))
    norm.bias.copy_(torch.linspace(-1, 1, outputs))
    return norm
