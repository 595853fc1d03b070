"""The size of a quantized model: bytes of its parameters, packed.

A weight of b bits takes b / 8 bytes. Each output channel has a scale and a zero point besides,
and what is not quantized stays as it is (biases, normalisations, embeddings of positions): 4 bytes
each, whatever the bits. Our choice is what is left out: the bounds of activations, 8 bytes for each
group, a thousandth of all; and that `igq.save` keeps every code in a byte of its own, for the size
is that of a model whose codes are packed, as they are where it is deployed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from igq.errors import InfeasibleBudgetError
from igq.layers import Layer
from igq.tables import CostTable

FLOAT_BYTES = 4
MEGABYTE = 1e6


@dataclass(frozen=True)
class SizeTable(CostTable):
    """Bytes of every layer's weight for every choice, and the most that the model may take.

    >>> table = SizeTable({"fc1": {1: 800, 2: 900}}, fixed=50, most=900)
    >>> table.of({"fc1": 1}), table.varies, table.most
    (850, True, 900)
    """

    most: int | None = None
    """None: the size is known and nothing limits it."""

    @property
    def varies(self) -> bool:
        """Whether any choice changes the size."""
        return any(len(set(sizes.values())) > 1 for sizes in self.layers.values())


def weight_bytes(layer: Layer, bits: int) -> int:
    """Bytes of a layer's weight at so many bits, the last one filled up; 0 where it has none.

    >>> from igq.layers import Slices
    >>> weight_bytes(Layer("fc", Slices.CHANNELS, 2, 3, 5, weighted=True), bits=4)
    8
    """
    return -(-layer.channels * layer.outputs * bits // 8) if layer.weighted else 0


def other_bytes(layers: Iterable[Layer], parameters: int) -> int:
    """Bytes of all but the codes, of a model with so many parameters in full precision.

    >>> from igq.layers import Slices
    >>> fc = Layer("fc", Slices.CHANNELS, tokens=2, channels=3, outputs=5, weighted=True)
    >>> other_bytes([fc], parameters=20) == 4 * 5 + 4 * 2 * 5  # its bias; scales and zero points
    True
    """
    weighted = [layer for layer in layers if layer.weighted]
    unquantized = parameters - sum(layer.channels * layer.outputs for layer in weighted)
    return FLOAT_BYTES * (unquantized + 2 * sum(layer.outputs for layer in weighted))


def check_size(sizes: SizeTable) -> SizeTable:
    """Return `sizes` if at least one allocation is as small as they ask for.

    Raises:
        InfeasibleBudgetError: even the smallest is larger.

    >>> check_size(SizeTable({"fc1": {1: 8, 2: 9}}, fixed=2, most=10)).minimum
    10
    """
    if sizes.most is not None and sizes.most < sizes.minimum:
        raise InfeasibleBudgetError(
            f"`max_size` must be at least the smallest possible model's {sizes.minimum:,} bytes, "
            f"but got max_size={sizes.most:,} bytes."
        )
    return sizes


def megabytes(size: int | float) -> str:
    """A size in words.

    >>> megabytes(3_211_564)
    '3.21 MB'
    """
    return f"{size / MEGABYTE:.3g} MB"
