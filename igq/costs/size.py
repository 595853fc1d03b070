"""The size of a quantized model: bytes of its parameters, with codes packed.

A weight of b bits takes b / 8 bytes. Each output channel has a scale and a zero point besides,
and parameters that are not quantized (biases, normalisations, embeddings of positions) take 4
bytes each, whatever the bits. The bounds of activations, 8 bytes for each group and a thousandth
of all, are left out (our choice).
"""

from collections.abc import Iterable, Sequence

from igq.costs.table import CostTable, Unit
from igq.costs.ties import Tie, tie_layers
from igq.layer import Layer
from igq.settings import Options

FLOAT_BYTES = 4


def size_table(
    layers: Sequence[Layer], options: Options, parameters: int, tie: Tie | None = None
) -> CostTable:
    """Return the bytes of every setting, of a model with this many parameters in full precision."""
    ties = tie_layers(layers, options, tie)
    chosen = {name for members in ties.values() for name in members}
    base = options.weight_bits[0]
    rest = sum(weight_bytes(layer, base) for layer in layers if layer.name not in chosen)
    return CostTable(
        Unit.BYTES,
        ties.entries(layers, options, lambda la, s: weight_bytes(la, s.weight_bits or base)),
        fixed=other_bytes(layers, parameters) + rest,
    )


def size_with(layers: Iterable[Layer], parameters: int, bits: int) -> int:
    """Return the bytes of a model with weights of this many bits everywhere."""
    layers = list(layers)
    return other_bytes(layers, parameters) + sum(weight_bytes(layer, bits) for layer in layers)


def weight_bytes(layer: Layer, bits: int) -> int:
    """Return the bytes of a layer's weight, the last one filled up; 0 where it has none.

    >>> from igq.layer import Kind
    >>> weight_bytes(Layer("fc", Kind.LINEAR, 2, 3, 5), bits=4)
    8
    """
    return -(-layer.channels * layer.outputs * bits // 8) if layer.weighted else 0


def other_bytes(layers: Iterable[Layer], parameters: int) -> int:
    """Return the bytes of all but the codes, of a model with this many parameters.

    >>> from igq.layer import Kind
    >>> fc = Layer("fc", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> other_bytes([fc], parameters=20) == 4 * 5 + 4 * 2 * 5  # its bias; scales and zero points
    True
    """
    weighted = [layer for layer in layers if layer.weighted]
    unquantized = parameters - sum(layer.channels * layer.outputs for layer in weighted)
    return FLOAT_BYTES * (unquantized + 2 * sum(layer.outputs for layer in weighted))
