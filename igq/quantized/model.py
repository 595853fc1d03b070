"""A quantized copy of a model, from the quantizers that an allocation selects."""

import copy
from collections.abc import Mapping

from torch import nn

from igq.grouping import Quantizer
from igq.quantized.candidates import Selection
from igq.quantized.swap import assemble, rotated
from igq.quantized.weights import quantize_weights


def quantize(model: nn.Module, quantizers: Mapping[str, Quantizer], weight_bits: int) -> nn.Module:
    """Return a copy of the model with quantized weights and activations.

    Weights take their nearest codes; `igq.correct` finds better ones. A selection of candidates
    has the model rotated as their scheme says. A layer without a quantizer keeps its activation in
    floating point.

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
    >>> chosen = candidates.select(igq.uniform(candidates.layers, 4))
    >>> igq.quantize(vit, chosen, weight_bits=8)(images).shape
    torch.Size([4, 10])
    """
    if isinstance(quantizers, Selection):
        model = rotated(model, quantizers.scheme.rotation)
    return assemble(copy.deepcopy(model), quantizers, quantize_weights(model, weight_bits))
