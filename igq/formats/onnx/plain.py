"""The plain vision transformer (ViT, DeiT) as an ONNX graph, module by module.

Tokens are rows, (images x tokens, channels), from the first block to the last; the heads of an
attention are an axis of (images, tokens, heads, width).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igq.errors import UnsupportedModelError
from igq.formats.onnx.activations import quantize_activation
from igq.formats.onnx.graph import Graph
from igq.formats.onnx.parts import (
    activation,
    convolution,
    linear,
    norm,
    quantizer_in,
    scaled,
    tensor,
)
from igq.grouping import PerSlice, Quantizer

INPUT, OUTPUT = "images", "logits"
"""The names of a model's input, (batch, channels, height, width), and output, (batch, classes)."""
MODELS = ("VisionTransformer", "VisionTransformerDistilled")
"""timm's models that are built so."""


def plain_graph(model: Any) -> Graph:
    """Return the graph of a quantized plain vision transformer, for any number of images.

    Raises:
        UnsupportedModelError: the model is of another family, or has a part without an ONNX form.
    """
    if type(model).__name__ not in MODELS:
        raise UnsupportedModelError(
            f"the model must be a {' or '.join(MODELS)} to be written as ONNX in standard "
            f"operators, but is a {type(model).__name__}; the format native holds it."
        )
    graph = Graph(type(model).__name__)
    channels, (height, width) = model.patch_embed.proj.in_channels, model.patch_embed.img_size
    images = graph.input(INPUT, np.float32, ["batch", channels, height, width])
    x = _embedded(graph, model, images)
    tokens = model.patch_embed.num_patches + model.num_prefix_tokens
    for i, block in enumerate(model.blocks):
        x = _block(graph, f"blocks.{i}", block, x, tokens)
    logits = _head(graph, model, x, tokens)
    graph.output(OUTPUT, logits, np.float32, ["batch", model.num_classes])
    return graph


def _embedded(graph: Graph, model: Any, images: str) -> str:
    """Return the rows of patches, prefix tokens before them, with their positions."""
    embed, name = model.patch_embed, "patch_embed"
    shape = (embed.proj.in_channels, *embed.img_size)
    maps = convolution(graph, f"{name}.proj", embed.proj, images, shape)
    with graph.scope(name):
        apart = graph.node("Reshape", maps, graph.ints(0, model.embed_dim, embed.num_patches))
        x = graph.node("Transpose", apart, perm=[0, 2, 1])
    x = norm(graph, f"{name}.norm", embed.norm, x)
    with graph.scope("pos_embed"):
        if model.num_prefix_tokens:
            x = graph.node("Pad", x, graph.ints(model.num_prefix_tokens, 0), "", graph.ints(1))
        x = graph.node("Add", x, tensor(graph, _positions(model), "prefix_and_positions"))
        x = graph.node("Reshape", x, graph.ints(-1, model.embed_dim))
    return norm(graph, "norm_pre", model.norm_pre, x)


def _positions(model: Any) -> Tensor:
    """Return (tokens, channels) that is added to patches after as many zeros as prefix tokens."""
    named = (getattr(model, name, None) for name in ("cls_token", "reg_token", "dist_token"))
    prefix = [token.detach()[0] for token in named if token is not None]
    patches, channels = model.patch_embed.num_patches, model.embed_dim
    position = model.pos_embed
    position = model.norm.weight.new_zeros(patches, channels) if position is None else position[0]
    alone = position.new_zeros(len(position) - patches, channels)
    before = torch.cat(prefix) if prefix else alone
    if len(position) > patches:  # prefix tokens have positions too
        return torch.cat((before + position[: len(before)], position[len(before) :]))
    return torch.cat((before, position))


def _block(graph: Graph, name: str, block: Any, x: str, tokens: int) -> str:
    """Return the rows after a block; one that normalises its results has no layer scale."""
    before = type(block).__name__ != "ResPostBlock"
    for part, place in ((_attention, "attn"), (_mlp, "mlp")):
        at = f"{name}.norm{1 if place == 'attn' else 2}"
        norm_module, module = block.get_submodule(at.rpartition(".")[2]), getattr(block, place)
        y = norm(graph, at, norm_module, x) if before else x
        y = part(graph, f"{name}.{place}", module, y, tokens)
        if before:
            scale = f"ls{at[-1]}"
            y = scaled(graph, f"{name}.{scale}", getattr(block, scale), y)
        else:
            y = norm(graph, at, norm_module, y)
        with graph.scope(name):
            x = graph.node("Add", x, y)
    return x


def _attention(graph: Graph, name: str, attn: Any, x: str, tokens: int) -> str:
    """Return the rows after an attention.

    q, k and v are quantized before an axis is moved: onnxruntime before 1.32 moves `Transpose`
    past `QuantizeLinear` without the scales of its blocks.
    """
    heads, width = attn.num_heads, attn.head_dim
    qkv = linear(graph, f"{name}.qkv", attn.qkv, x, tokens)
    with graph.scope(name):
        apart = graph.node("Reshape", qkv, graph.ints(-1, tokens, 3 * heads, width))
        qk, v = graph.nodes("Split", apart, graph.ints(2 * heads, heads), outputs=2, axis=2)
    q, k = _queries_and_keys(graph, name, attn, qk, tokens)
    with graph.scope(f"{name}.v"):
        v = quantize_activation(graph, _by_token(attn.v), v, (tokens, heads, width))
    with graph.scope(name):
        q = graph.node("Mul", q, graph.constant(np.float32(width**-0.5)))
        q = graph.node("Transpose", q, perm=[0, 2, 1, 3])
        scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 2, 3, 1]))
    with graph.scope(f"{name}.softmax"):
        softmax = graph.node("Softmax", scores, axis=-1)
        shape = (heads, tokens, tokens)
        softmax = quantize_activation(graph, quantizer_in(attn.softmax), softmax, shape)
    with graph.scope(name):
        means = graph.node("Einsum", softmax, v, equation="bhqk,bkhw->bqhw")
        joined = graph.node("Reshape", means, graph.ints(-1, heads * width))
    joined = norm(graph, f"{name}.norm", attn.norm, joined)
    return linear(graph, f"{name}.proj", attn.proj, joined, tokens)


def _queries_and_keys(graph: Graph, name: str, attn: Any, qk: str, tokens: int) -> tuple[str, str]:
    """Return q and k, quantized together where nothing tells them apart."""
    heads, width = attn.num_heads, attn.head_dim
    first, second = _by_token(attn.q), _by_token(attn.k)
    together = first == second and type(attn.q_norm) is type(attn.k_norm) is torch.nn.Identity
    if together:
        with graph.scope(f"{name}.qk"):
            qk = quantize_activation(graph, first, qk, (tokens, 2 * heads, width))
    with graph.scope(name):
        q, k = graph.nodes("Split", qk, outputs=2, axis=2, num_outputs=2)
    if together:
        return q, k
    made = []
    for part, quantizer, value in (("q", first, q), ("k", second, k)):
        value = norm(graph, f"{name}.{part}_norm", getattr(attn, f"{part}_norm"), value)
        with graph.scope(f"{name}.{part}"):
            made.append(quantize_activation(graph, quantizer, value, (tokens, heads, width)))
    return made[0], made[1]


def _by_token(slot: Any) -> Quantizer | None:
    """Return the quantizer of (heads, tokens, width) for (tokens, heads, width)."""
    quantizer = quantizer_in(slot)
    if quantizer is None or not isinstance(quantizer.grouping, PerSlice):
        return quantizer
    axes = tuple({-2: -3}.get(axis, axis) for axis in quantizer.grouping.axes)
    return replace(quantizer, grouping=replace(quantizer.grouping, axes=axes))


def _mlp(graph: Graph, name: str, mlp: Any, x: str, tokens: int) -> str:
    hidden = _hidden(graph, name, mlp, x, tokens)
    hidden = norm(graph, f"{name}.norm", mlp.norm, hidden)
    return linear(graph, f"{name}.fc2", mlp.fc2, hidden, tokens)


def _hidden(graph: Graph, name: str, mlp: Any, x: str, tokens: int) -> str:
    """Return the inputs of an MLP's second layer: through an activation, or gated by one."""
    kind = type(mlp).__name__
    if kind == "SwiGLU":
        gate = linear(graph, f"{name}.fc1_g", mlp.fc1_g, x, tokens)
        value = linear(graph, f"{name}.fc1_x", mlp.fc1_x, x, tokens)
    else:
        value = linear(graph, f"{name}.fc1", mlp.fc1, x, tokens)
        if kind == "Mlp":
            return activation(graph, f"{name}.act", mlp.act, value)
        with graph.scope(name):
            halves = graph.nodes("Split", value, outputs=2, axis=-1, num_outputs=2)
        value, gate = halves if mlp.gate_last else reversed(halves)
    gate = activation(graph, f"{name}.act", mlp.act, gate)
    with graph.scope(name):
        return graph.node("Mul", gate, value)


def _head(graph: Graph, model: Any, x: str, tokens: int) -> str:
    """Return the logits; a distilled model's are the mean of its two heads'."""
    x = norm(graph, "norm", model.norm, x)
    with graph.scope("pool"):
        x = graph.node("Reshape", x, graph.ints(-1, tokens, model.embed_dim))
    if type(model).__name__ == "VisionTransformerDistilled":
        logits = [
            linear(graph, name, getattr(model, name), _token(graph, x, place), 1)
            for place, name in enumerate(("head", "head_dist"))
        ]
        return graph.node("Mul", graph.node("Add", *logits), graph.constant(np.float32(0.5)))
    pooled = norm(graph, "fc_norm", model.fc_norm, _pooled(graph, model, x))
    return linear(graph, "head", model.head, pooled, 1)


def _token(graph: Graph, x: str, place: int) -> str:
    with graph.scope("pool"):
        return graph.node("Gather", x, graph.constant(np.int64(place)), axis=1)


def _pooled(graph: Graph, model: Any, x: str) -> str:
    """Return the one row of each image that the head sees."""
    kind, first = model.global_pool, 0 if model.pool_include_prefix else model.num_prefix_tokens
    if kind == "token":
        return _token(graph, x, 0)
    with graph.scope("pool"):
        if first:
            end = graph.ints(np.iinfo(np.int64).max)
            x = graph.node("Slice", x, graph.ints(first), end, graph.ints(1))
        mean = graph.node("ReduceMean", x, graph.ints(1), keepdims=0) if "avg" in kind else ""
        most = graph.node("ReduceMax", x, graph.ints(1), keepdims=0) if "max" in kind else ""
        if mean and most:
            both = graph.node("Add", mean, most)
            return graph.node("Mul", both, graph.constant(np.float32(0.5)))
    return mean or most
