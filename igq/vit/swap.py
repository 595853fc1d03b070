"""Copies of a model whose activations pass slots and whose weights are quantized."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from igq.affine import QuantizedTensor
from igq.errors import InvalidArgumentError, UnsupportedModelError
from igq.grouping import Quantizer
from igq.modules import (
    Conv2d,
    FakeQuantize,
    FakeQuantizeSlices,
    Linear,
    Slot,
    SwitchedFakeQuantize,
    slot_of,
)
from igq.rotation import RotatedLinear, Rotation
from igq.vit.attention import OPERANDS, Attention
from igq.vit.structure import layers, supported
from igq.weights import quantize_weight


def quantize_weights(model: nn.Module, bits: int) -> dict[str, QuantizedTensor]:
    """The weights of every linear and convolution layer, quantized; layer name -> codes.

    Raises:
        InvalidArgumentError: `bits` out of range.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
        WeightsError: a weight holds NaN or infinity.
    """
    _check_full_precision(model)
    return {
        layer.name: quantize_weight(model.get_parameter(f"{layer.name}.weight"), bits)
        for layer in layers(model)
        if layer.weighted
    }


def quantize(model: nn.Module, quantizers: Mapping[str, Quantizer], weight_bits: int) -> nn.Module:
    """A copy of the model with quantized weights and activations; the original is untouched.

    Layers that `quantizers` does not name keep their activation in floating point.

    Raises:
        InvalidArgumentError: `weight_bits` out of range, or an unknown layer.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
        WeightsError: a weight holds NaN or infinity.

    >>> import igq, torch
    >>> arguments = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10}
    >>> arguments |= {"embed_dim": 12, "depth": 1, "num_heads": 3}
    >>> vit = igq.create("vit_tiny_patch16_224", arguments)
    >>> images = torch.rand(4, 1, 8, 8)
    >>> candidates = igq.fit(igq.observe(vit, images), num_groups=(2, 4), bits=8)
    >>> chosen = candidates.select(igq.uniform(igq.layers(vit), 4))
    >>> quantized = igq.quantize(vit, chosen, weight_bits=8)
    >>> quantized(images).shape
    torch.Size([4, 10])
    """
    return assemble(copy.deepcopy(model), quantizers, quantize_weights(model, weight_bits))


def rotated(model: nn.Module, rotation: Rotation) -> nn.Module:
    """A copy that predicts the same, its linear layers in a rotated basis where `rotation` says.

    Other parameters are shared with `model`, which is untouched.

    Raises:
        UnsupportedModelError: the model is of no supported family, or a part of it is not.

    >>> import igq
    >>> vit = igq.create("vit_tiny_patch16_224", {"depth": 1, "img_size": 32})
    >>> [layer.name for layer in layers(rotated(vit, Rotation.WIDE)) if layer.rotated]
    ['blocks.0.attn.qkv', 'blocks.0.mlp.fc1']
    """
    names = [layer.name for layer in layers(model) if layer.weighted and layer.grouped]
    linears = {name: model.get_submodule(name) for name in names}
    return with_rotated(
        model, [n for n, m in linears.items() if isinstance(m, nn.Linear) and rotation.includes(m)]
    )


def with_rotated(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy in which the linear layers of these names are rotated.

    Raises:
        UnsupportedModelError: the model is quantized, or a name is not that of a linear layer.
    """
    _check_full_precision(model)
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    for name in names:
        source = copied.get_submodule(name)
        if type(source) is not nn.Linear:
            raise UnsupportedModelError(
                f"what is rotated must be a linear layer, but {name} is a {type(source).__name__}."
            )
        copied.set_submodule(name, RotatedLinear.of(source))
        parent: Any = copied.get_submodule(name.rpartition(".")[0])
        if hasattr(parent, "qkv_bias_separate"):  # else timm multiplies with qkv's weight itself
            parent.qkv_bias_separate = True
    return copied


def assemble(
    model: nn.Module,
    quantizers: Mapping[str, Quantizer],
    weights: Mapping[str, QuantizedTensor],
) -> nn.Module:
    """The model with these activation quantizers and weights; shares its other parameters.

    Raises:
        InvalidArgumentError: `quantizers` names a layer that the model does not have.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
    """
    assembled = with_slots(model, lambda layer: nn.Identity(), weights)
    set_quantizers(assembled, quantizers)
    return assembled


def set_quantizers(model: nn.Module, quantizers: Mapping[str, Quantizer]) -> None:
    """Put these quantizers, and no others, into a model made by `assemble`, in place.

    Raises:
        InvalidArgumentError: `quantizers` names a layer that the model does not have.
    """
    slots = dict(_slots(model))
    unknown = sorted(set(quantizers) - set(slots))
    if unknown:
        raise InvalidArgumentError(
            f"a quantizer must name a layer of the model, but got {unknown[0]}."
        )
    device = next(model.parameters()).device
    for name, path in slots.items():
        quantizer = quantizers.get(name)
        held = model.get_submodule(path)
        if isinstance(held, SwitchedFakeQuantize) and held.takes(quantizer):
            held.load(quantizer)
            continue
        slot = nn.Identity() if quantizer is None else slot_of(quantizer).to(device)
        model.set_submodule(path, slot)


def set_weights(model: nn.Module, weights: Mapping[str, QuantizedTensor]) -> None:
    """Put these weights into a model made by `assemble` with quantized weights, in place.

    Raises:
        InvalidArgumentError: `weights` names a layer whose weight is not quantized.
    """
    for name, weight in weights.items():
        product = model.get_submodule(name)
        if not isinstance(product, (Linear, Conv2d)) or product.quantized_weight is None:
            raise InvalidArgumentError(
                f"a weight must be for a layer with a quantized one, but got {name}."
            )
        if product.quantized_weight is not weight:
            product.quantized_weight = weight
            product.weight = weight.dequantize().to(product.weight)
            if isinstance(product, Linear) and product.codes is not None:
                product.in_bfloat16()


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """The activation quantizers of a quantized model: layer name -> fitted quantizer."""
    found = ((name, model.get_submodule(path)) for name, path in _slots(model))
    quantizing = (FakeQuantize, FakeQuantizeSlices, SwitchedFakeQuantize)
    held = {name: slot.quantizer for name, slot in found if isinstance(slot, quantizing)}
    return {name: quantizer for name, quantizer in held.items() if quantizer is not None}


def quantized_weights(model: nn.Module) -> dict[str, QuantizedTensor]:
    """The quantized weights of a quantized model: layer name -> codes."""
    products = ((n, m) for n, m in model.named_modules() if isinstance(m, (Linear, Conv2d)))
    return {n: m.quantized_weight for n, m in products if m.quantized_weight is not None}


def with_slots(
    model: nn.Module, slot: Slot, weights: Mapping[str, QuantizedTensor] | None = None
) -> nn.Module:
    """A copy in which each layer's activation passes the module that `slot` makes for it.

    Parameters are shared with `model`; weights named in `weights` are replaced by them.

    Raises:
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
    """
    _check_full_precision(model)
    family = supported(model)
    listed = tuple(family.layers(model))
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    swapped = copy.deepcopy(model, shared).eval()
    for layer in listed:
        if layer.weighted:
            made = _product(model.get_submodule(layer.name), slot(layer), weights, layer.name)
            swapped.set_submodule(layer.name, made)
    for path, attention in list(family.attentions(swapped)):
        swapped.set_submodule(path, attention)
    for layer in listed:
        if not layer.weighted:
            swapped.set_submodule(layer.name, slot(layer))
    return swapped


def _product(
    source: Any, activation: nn.Module, weights: Mapping[str, QuantizedTensor] | None, name: str
) -> Linear | Conv2d:
    product = Conv2d if isinstance(source, nn.Conv2d) else Linear
    return product(source, activation, (weights or {}).get(name))


def _check_full_precision(model: nn.Module) -> None:
    if any(_slots(model)):
        raise UnsupportedModelError(
            "the model must be in full precision, but is quantized already."
        )


def _slots(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Layer name and path of its slot, in a model made by `with_slots`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, (Linear, Conv2d)):
            yield name, f"{name}.activation"
        elif isinstance(module, Attention):
            yield from ((f"{name}.{slot}", f"{name}.{slot}") for slot in OPERANDS)
