"""Copies of a model whose activations pass slots and whose weights are quantized."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rotation import RotatedLinear
from igq.checks import check_devices
from igq.errors import InvalidArgumentError, UnsupportedModelError
from igq.grouping import Quantizer
from igq.layer import Kind
from igq.modules import (
    OPERANDS,
    Attention,
    Conv2d,
    FakeQuantize,
    FakeQuantizeSlices,
    Linear,
    Slot,
    SwitchedFakeQuantize,
    slot_of,
)
from igq.scheme import Rotation
from igq.vit import layers, supported


def rotated(model: nn.Module, rotation: Rotation) -> nn.Module:
    """Return the model with the linear layers that `rotation` names in a rotated basis.

    It predicts the same, and shares its other parameters with `model`, which is untouched. A model
    that is rotated so already is returned as it is.

    Raises:
        InvalidArgumentError: the model is rotated already, but in other layers.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.

    >>> import igq
    >>> vit = igq.create("vit_tiny_patch16_224", {"depth": 1, "img_size": 32})
    >>> rotated_layers(igq.rotated(vit, igq.Rotation.WIDE))
    ['blocks.0.attn.qkv', 'blocks.0.mlp.fc1']
    """
    wanted = [
        layer.name
        for layer in layers(model)
        if layer.kind is Kind.LINEAR and rotation.includes(layer.channels, layer.outputs)
    ]
    held = rotated_layers(model)
    if held == wanted:
        return model
    if held:
        raise InvalidArgumentError(
            f"the model must not be rotated, or as {rotation.value!r} says, but its "
            f"{sorted(set(held) ^ set(wanted))[0]} differs from that."
        )
    return with_rotated(model, wanted)


def rotated_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers that compute in a rotated basis, also of a quantized model."""
    names = (layer.name for layer in layers(model) if layer.kind is Kind.LINEAR)
    return [n for n in names if getattr(model.get_submodule(n), "rotation", None) is not None]


def with_rotated(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Return a copy in which the linear layers of these names are rotated.

    Raises:
        UnsupportedModelError: the model is quantized, or a name is not that of a linear layer.
    """
    check_full_precision(model)
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    for name in names:
        source = copied.get_submodule(name)
        if type(source) is not nn.Linear:
            raise UnsupportedModelError(
                f"a rotated layer must be linear, but {name} is a {type(source).__name__}."
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
    """Return the model with these activation quantizers and weights.

    It shares its other parameters with `model`, which must be rotated as the quantizers expect.

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
    """Return the activation quantizers of a quantized model: layer name -> quantizer."""
    found = ((name, model.get_submodule(path)) for name, path in _slots(model))
    quantizing = (FakeQuantize, FakeQuantizeSlices, SwitchedFakeQuantize)
    held = {name: slot.quantizer for name, slot in found if isinstance(slot, quantizing)}
    return {name: quantizer for name, quantizer in held.items() if quantizer is not None}


def quantized_weights(model: nn.Module) -> dict[str, QuantizedTensor]:
    """Return the quantized weights of a quantized model: layer name -> codes."""
    products = ((n, m) for n, m in model.named_modules() if isinstance(m, (Linear, Conv2d)))
    return {n: m.quantized_weight for n, m in products if m.quantized_weight is not None}


def with_slots(
    model: nn.Module, slot: Slot, weights: Mapping[str, QuantizedTensor] | None = None
) -> nn.Module:
    """Return a copy in which each layer's activation passes the module that `slot` makes for it.

    Parameters are shared with `model`; weights named in `weights` are replaced by them.

    Raises:
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
    """
    check_full_precision(model)
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


def check_full_precision(model: nn.Module) -> None:
    """Refuse a model whose activations pass slots.

    Raises:
        UnsupportedModelError: it is quantized already, or on several devices.
    """
    check_devices(model)
    if any(_slots(model)):
        raise UnsupportedModelError(
            "the model must be in full precision, but is quantized already."
        )


def _slots(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield layer name and path of its slot, in a model made by `with_slots`."""
    for name, module in list(model.named_modules()):
        if isinstance(module, (Linear, Conv2d)):
            yield name, f"{name}.activation"
        elif isinstance(module, Attention):
            yield from ((f"{name}.{slot}", f"{name}.{slot}") for slot in OPERANDS)
