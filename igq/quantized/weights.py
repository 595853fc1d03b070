"""Quantized weights of a model, by layer, and by bits where bits are searched."""

from collections.abc import Iterable, Mapping

from torch import nn

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.weights import quantize_weight
from igq.layer import Layer
from igq.quantized.swap import check_full_precision
from igq.settings import Setting
from igq.vit import layers

WeightsByBits = Mapping[int, Mapping[str, QuantizedTensor]]
"""Weight bits -> layer name -> quantized weight."""


def quantize_weights(model: nn.Module, bits: int) -> dict[str, QuantizedTensor]:
    """Quantize the weights of every linear and convolution layer to their nearest codes.

    Returns layer name -> quantized weight.

    Raises:
        InvalidArgumentError: `bits` out of range.
        UnsupportedModelError: the model is of no supported family, or a part of it is not.
        WeightsError: a weight holds NaN or infinity.
    """
    check_full_precision(model)
    return {
        layer.name: quantize_weight(model.get_parameter(f"{layer.name}.weight"), bits)
        for layer in layers(model)
        if layer.weighted
    }


def select_weights(
    weights: WeightsByBits, allocation: Mapping[str, Setting], layers: Iterable[Layer]
) -> dict[str, QuantizedTensor]:
    """Return the weight of every layer with the bits that its setting gives it.

    A layer whose setting has no weight bits has those of the one entry of `weights`.
    """
    chosen = {}
    for layer in layers:
        bits = allocation.get(layer.name, Setting()).weight_bits
        if layer.weighted and bits is not None:
            chosen[layer.name] = weights[bits][layer.name]
        elif layer.weighted and len(weights) == 1:
            (only,) = weights.values()
            chosen[layer.name] = only[layer.name]
    return chosen
