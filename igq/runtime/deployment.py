"""A quantized model whose layers are the runtime's operators: the same predictions, sooner."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.errors import UnsupportedModelError
from igq.grouping import Quantizer
from igq.modules import OPERANDS, Conv2d, Linear
from igq.quantized import quantizers
from igq.runtime import operators  # noqa: F401  # defines igq::linear and igq::self_attention
from igq.runtime.panels import LinearLayer, attention_panel, linear_panel
from igq.vit.families.plain import PlainAttention, is_pre_norm_block


class DeployedLinear(nn.Module):
    """A linear layer as one operator, whose panel holds its weights.

    >>> from igq.arithmetic.weights import quantize_weight
    >>> from igq.grouping import TOKENS, SliceQuantizer
    >>> weight = quantize_weight(torch.randn(3, 8), bits=4)
    >>> layer = DeployedLinear(LinearLayer(weight, SliceQuantizer(8, TOKENS)))
    >>> layer(torch.rand(1, 5, 8)).shape
    torch.Size([1, 5, 3])
    """

    panel: Tensor

    def __init__(self, layer: LinearLayer) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.weight.codes.shape
        self.register_buffer("panel", linear_panel(layer))

    def forward(
        self,
        x: Float[Tensor, "images *tokens inputs"],
        residual: Float[Tensor, "images *tokens outputs"] | None = None,
    ) -> Float[Tensor, "images *tokens outputs"]:
        """Return the layer's outputs, `residual` added."""
        made: Tensor = torch.ops.igq.linear(x, self.panel, self.out_features, residual)
        return made

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.panel.numel()} bytes"


class DeployedPatches(nn.Module):
    """A convolution whose patches do not overlap, as a linear layer of each patch."""

    def __init__(self, source: Conv2d, quantizer: Quantizer) -> None:
        super().__init__()
        self.kernel_size = source.kernel_size
        weight = _weight(source)
        flat = QuantizedTensor(
            weight.codes.flatten(1), weight.scale, weight.zero_point, weight.bits
        )
        self.patch = DeployedLinear(LinearLayer(flat, quantizer, source.bias))

    def forward(self, x: Float[Tensor, "images inputs h w"]) -> Float[Tensor, "images outputs i j"]:
        """Return the embedding of each patch."""
        high, wide = self.kernel_size
        rows, columns = x.shape[2] // high, x.shape[3] // wide
        x = x[:, :, : rows * high, : columns * wide]
        patches = x.unflatten(3, (-1, wide)).unflatten(2, (-1, high))
        flat = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        embedded: Tensor = self.patch(flat)
        made: Tensor = embedded.transpose(1, 2).unflatten(2, (rows, columns))
        return made


class DeployedBlock(nn.Module):
    """A block of the plain vision transformer as five operators."""

    panel: Tensor

    def __init__(self, block: Any, held: dict[str, Quantizer], name: str) -> None:
        super().__init__()
        attn, mlp = block.attn, block.mlp
        self.qkv = _deployed(attn.qkv, held[f"{name}.attn.qkv"], norm=block.norm1)
        four = tuple(held[f"{name}.attn.{part}"] for part in OPERANDS)
        q, k, softmax, v = four
        panel = attention_panel(attn.num_heads, attn.head_dim, (q, k, v, softmax))
        self.register_buffer("panel", panel)
        self.num_heads = attn.num_heads
        self.proj = _deployed(attn.proj, held[f"{name}.attn.proj"])
        self.fc1 = _deployed(mlp.fc1, held[f"{name}.mlp.fc1"], norm=block.norm2, gelu=True)
        self.fc2 = _deployed(mlp.fc2, held[f"{name}.mlp.fc2"])

    def forward(self, x: Float[Tensor, "images tokens channels"]) -> Float[Tensor, "..."]:
        """Return the block's output."""
        x = self.proj(torch.ops.igq.self_attention(self.qkv(x), self.panel), x)
        made: Tensor = self.fc2(self.fc1(x), x)
        return made


def deploy(model: nn.Module) -> nn.Module:
    """Return a copy of a quantized model that computes with the runtime's operators.

    Blocks of the plain vision transformer (ViT, DeiT) become five operators each; of other
    families the linear layers alone are replaced, and attention stays torch's.

    Raises:
        UnsupportedModelError: a layer is not quantized, or in a way that the runtime lacks.

    >>> import igq
    >>> vit = igq.create("vit_tiny_patch16_224", {"img_size": 32, "depth": 1})
    >>> images = torch.rand(4, 3, 32, 32)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> quantized = igq.quantize(vit, candidates.select(igq.uniform(candidates.layers, 4)), 8)
    >>> deployed = igq.deploy(quantized)
    >>> with torch.inference_mode():
    ...     bool((deployed(images) - quantized(images)).abs().max() < 0.1)
    True
    """
    held = quantizers(model)
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    deployed = copy.deepcopy(model, memo).eval().requires_grad_(False)
    for name, block in list(deployed.named_modules()):
        if is_pre_norm_block(block):
            _check(held, name, block)
            deployed.set_submodule(name, DeployedBlock(block, held, name))
    for name, product in list(deployed.named_modules()):
        if isinstance(product, Linear):
            _check(held, name, product)
            deployed.set_submodule(name, _deployed(product, held[name]))
        elif isinstance(product, Conv2d) and _is_patches(product):
            _check(held, name, product)
            deployed.set_submodule(name, DeployedPatches(product, held[name]))
    return deployed


def _deployed(
    source: Linear, quantizer: Quantizer, norm: nn.LayerNorm | None = None, gelu: bool = False
) -> DeployedLinear:
    layer = LinearLayer(_weight(source), quantizer, source.bias, source.rotation, norm, gelu)
    return DeployedLinear(layer)


def _weight(source: Linear | Conv2d) -> QuantizedTensor:
    assert source.quantized_weight is not None  # _check
    return source.quantized_weight


def _check(held: dict[str, Quantizer], name: str, module: nn.Module) -> None:
    """Refuse a module with a layer that is not quantized.

    Raises:
        UnsupportedModelError: there is one; the message names it.
    """
    for path, part in module.named_modules(prefix=name):
        wanted = [path] if isinstance(part, (Linear, Conv2d)) else []
        if isinstance(part, PlainAttention):
            wanted = [f"{path}.{operand}" for operand in OPERANDS]
        missing = [layer for layer in wanted if layer not in held]
        if isinstance(part, (Linear, Conv2d)) and part.quantized_weight is None:
            missing.append(path)
        if missing:
            raise UnsupportedModelError(
                f"every layer must be quantized to be deployed, but {missing[0]} is not."
            )


def _is_patches(conv: Conv2d) -> bool:
    return (
        conv.stride == conv.kernel_size
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding in ((0, 0), "valid")
    )
