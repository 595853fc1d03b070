"""ONNX with the runtime's operators: five nodes a block, for onnxruntime with igq's library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igq.errors import UnsupportedModelError
from igq.formats.metadata import metadata_of
from igq.formats.onnx.graph import Graph
from igq.formats.onnx.standard import check, write_folder
from igq.runtime.deployment import DeployedBlock, DeployedLinear, DeployedPatches, deploy

DOMAIN = "igq"
"""The domain of the runtime's operators, which its library registers with a session."""


def onnx_with_operators(model: nn.Module, metadata: Mapping[str, str] | None = None) -> Any:
    """Return the ONNX model of a quantized plain vision transformer, in the runtime's operators.

    It takes `images` (images, channels, height, width), float32, and gives `logits`. Its nodes of
    the domain `igq` are those of `igq.runtime`: a session loads `igq.runtime.library_path()`.

    Raises:
        UnsupportedModelError: the model is of another family, or has a part that igq does not
            deploy.
    """
    deployed: Any = deploy(model)
    _check(deployed)
    graph = Graph("igq", domains={DOMAIN: 1})
    high, wide = deployed.patch_embed.proj.kernel_size
    channels = deployed.patch_embed.proj.patch.in_features // (high * wide)
    shape = ["images", channels, *deployed.patch_embed.img_size]
    x = graph.input("images", np.float32, shape)
    x = _embed(graph, deployed, x)
    for i, block in enumerate(deployed.blocks):
        with graph.scope(f"blocks.{i}"):
            x = _block(graph, block, x)
    with graph.scope("head"):
        x = _classify(graph, deployed, x)
    graph.output("logits", x, np.float32, ["images", deployed.num_classes])
    return graph.model(metadata)


def write(model: nn.Module, path: Path, notes: Mapping[str, Any]) -> Path:
    """Write a quantized model in the runtime's operators; see `igq.formats.onnx.write_onnx_igq`."""
    check(model, path)
    exported = onnx_with_operators(model, metadata_of(model, notes))
    return write_folder(exported, model, path, notes, "onnx-igq")


def _check(deployed: Any) -> None:
    """Refuse a model with a part that has no node here.

    Raises:
        UnsupportedModelError: there is one; the message names it.
    """
    blocks = list(getattr(deployed, "blocks", []))
    odd = [i for i, block in enumerate(blocks) if not isinstance(block, DeployedBlock)]
    if not blocks or odd:
        raise UnsupportedModelError(
            "every block must be that of a plain ViT or DeiT to be written in the runtime's "
            f"operators, but {type(deployed).__name__} has another; use the format `native`."
        )
    parts = {"norm_pre": nn.Identity, "fc_norm": nn.Identity, "norm": nn.LayerNorm}
    for name, kind in parts.items():
        if not isinstance(getattr(deployed, name), kind):
            raise UnsupportedModelError(
                f"{name} must be a {kind.__name__} to be written, but is not."
            )
    if deployed.global_pool != "token" or not isinstance(
        deployed.patch_embed.proj, DeployedPatches
    ):
        raise UnsupportedModelError("the class token must be what is classified, but is not.")
    if hasattr(deployed, "head_dist") or deployed.num_prefix_tokens != 1 or deployed.no_embed_class:
        raise UnsupportedModelError("a class token must be the one prefix token, but is not.")


def _embed(graph: Graph, model: Any, x: str) -> str:
    """Add the patches' embedding, the class token and the positions."""
    patches: DeployedPatches = model.patch_embed.proj
    high, wide = patches.kernel_size
    channels, (rows, columns) = (
        patches.patch.in_features // (high * wide),
        model.patch_embed.grid_size,
    )
    with graph.scope("patch_embed"):
        cut = graph.ints(0, channels, rows, high, columns, wide)
        x = graph.node("Reshape", x, cut)
        x = graph.node("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
        x = graph.node("Reshape", x, graph.ints(0, rows * columns, channels * high * wide))
        x = _linear(graph, patches.patch, x)
        norm = model.patch_embed.norm
        if not isinstance(norm, nn.Identity):
            raise UnsupportedModelError("patch_embed.norm must be an Identity, but is not.")
        token = graph.constant(_array(model.cls_token), "cls_token")
        count = graph.node("Shape", x, start=0, end=1)
        shape = graph.node("Concat", count, graph.ints(1, 1), axis=0)
        x = graph.node("Concat", graph.node("Expand", token, shape), x, axis=1)
        return graph.node("Add", x, graph.constant(_array(model.pos_embed), "pos_embed"))


def _block(graph: Graph, block: DeployedBlock, x: str) -> str:
    qkv = _linear(graph, block.qkv, x)
    panel = graph.constant(block.panel.numpy(), "attention")
    attended = graph.node("SelfAttention", qkv, panel, domain=DOMAIN)
    x = _linear(graph, block.proj, attended, x)
    return _linear(graph, block.fc2, _linear(graph, block.fc1, x), x)


def _classify(graph: Graph, model: Any, x: str) -> str:
    token = graph.node("Gather", x, graph.constant(np.int64(0)), axis=1)
    norm, head = model.norm, model.head
    gain, shift = graph.constant(_array(norm.weight)), graph.constant(_array(norm.bias))
    x = graph.node("LayerNormalization", token, gain, shift, epsilon=norm.eps)
    if not isinstance(head, DeployedLinear):
        raise UnsupportedModelError("the head must be a linear layer to be written, but is not.")
    return _linear(graph, head, x)


def _linear(graph: Graph, layer: DeployedLinear, x: str, residual: str | None = None) -> str:
    panel = graph.constant(layer.panel.numpy(), "panel")
    inputs = (x, panel) if residual is None else (x, panel, residual)
    return graph.node("Linear", *inputs, domain=DOMAIN)


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().float().numpy()
