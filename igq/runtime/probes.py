"""Operators to measure: those of one layer with one setting, as a deployed model has them.

The time of an operator depends on shapes, bits and groups, not on values: weights and inputs are
drawn at random, and no checkpoint is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.arithmetic.rotation import rotation_signs
from igq.errors import RuntimeLibraryError, UnsupportedModelError
from igq.grouping import FittedGrouping, Quantizer, SliceQuantizer, grouping_of
from igq.grouping.per_slice import HEAD_CHANNELS, HEAD_TOKENS
from igq.layer import Kind, Layer, block_and_place
from igq.runtime.operators import linear, self_attention
from igq.runtime.panels import LinearLayer, attention_panel, linear_panel
from igq.scheme import Scheme
from igq.settings import Setting

NORMALISED = ("attn.qkv", "mlp.fc1")
"""Layers of a block whose operator has the normalisation before it, as `igq.deploy` fuses them."""
ACTIVATED = ("mlp.fc1",)
"""Layers whose operator has GELU after it."""
ADDED = ("attn.proj", "mlp.fc2")
"""Layers whose operator adds the residual."""
SEED = 0


@dataclass(frozen=True, eq=False)
class Probe:
    """An operator and its inputs, of one image.

    >>> Probe(lambda: torch.zeros(1), ()).run()
    tensor([0.])
    """

    run: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]

    def touch(self) -> None:
        """Write the inputs, as the operator before does in a model: they are in the cache then."""
        for tensor in self.inputs:
            tensor.neg_()


@dataclass(frozen=True)
class Shape:
    """A shape of operator, with its neighbours: layers that share it are measured once.

    >>> fc2 = Layer("blocks.0.mlp.fc2", Kind.LINEAR, tokens=197, channels=768, outputs=192)
    >>> str(Shape.of(fc2, Scheme.BEST))
    'linear 197 x 768 x 192, residual'
    """

    kind: Kind
    tokens: int
    channels: int
    outputs: int
    heads: int
    norm: bool
    gelu: bool
    residual: bool
    rotated: bool

    @classmethod
    def of(cls, layer: Layer, scheme: Scheme) -> "Shape":
        """Return the shape of a layer's operator."""
        is_linear = layer.kind is Kind.LINEAR
        place = block_and_place(layer.name)[1] if is_linear else ""
        return cls(
            layer.kind,
            layer.tokens,
            layer.channels,
            layer.outputs,
            layer.heads,
            place in NORMALISED,
            place in ACTIVATED,
            place in ADDED,
            is_linear and scheme.rotation.includes(layer.channels, layer.outputs),
        )

    def __str__(self) -> str:
        parts = {
            "norm": self.norm,
            "rotated": self.rotated,
            "GELU": self.gelu,
            "residual": self.residual,
        }
        sizes = f"{self.kind} {self.tokens} x {self.channels} x {self.outputs}"
        return ", ".join((sizes, *(name for name, has in parts.items() if has)))


def shapes(layers: Sequence[Layer], scheme: Scheme) -> dict[Shape, tuple[Layer, ...]]:
    """Return each distinct shape of operator with its layers; q, k and v are the softmax map's.

    >>> fcs = [Layer(f"blocks.{i}.mlp.fc1", Kind.LINEAR, 2, 3, 5) for i in range(3)]
    >>> [len(layers) for layers in shapes(fcs, Scheme.BEST).values()]
    [3]
    """
    found: dict[Shape, tuple[Layer, ...]] = {}
    for layer in layers:
        if layer.weighted or layer.kind is Kind.SOFTMAX:
            shape = Shape.of(layer, scheme)
            found[shape] = (*found.get(shape, ()), layer)
    return found


def probe(layer: Layer, scheme: Scheme, setting: Setting) -> Probe | None:
    """Return the operator of a layer with a setting; None where the runtime cannot run it.

    `setting` has every part that the layer's operator has (`igq.costs.latency.whole_setting`).

    >>> fc1 = Layer("blocks.0.mlp.fc1", Kind.LINEAR, tokens=5, channels=8, outputs=16)
    >>> made = probe(fc1, Scheme.BEST, Setting(4, 4, 2))
    >>> made.run().shape
    torch.Size([1, 5, 16])
    """
    generator = torch.Generator().manual_seed(SEED)
    make = _attention if layer.kind is Kind.SOFTMAX else _linear
    try:
        made = make(layer, scheme, setting, generator)
        made.run()
    except (RuntimeLibraryError, UnsupportedModelError):
        return None
    return made


def _linear(layer: Layer, scheme: Scheme, setting: Setting, generator: torch.Generator) -> Probe:
    shape, outputs = Shape.of(layer, scheme), layer.outputs
    assert setting.weight_bits is not None  # every linear operator has weights
    codes = torch.randint(
        2**setting.weight_bits, (outputs, layer.channels), generator=generator, dtype=torch.uint8
    )
    zeros = torch.full((outputs,), 2.0 ** (setting.weight_bits - 1))
    weight = QuantizedTensor(codes, torch.full((outputs,), 0.01), zeros, setting.weight_bits)
    panel = linear_panel(
        LinearLayer(
            weight,
            _quantizer(layer, scheme, setting, layer.channels, generator),
            torch.zeros(outputs),
            rotation_signs(layer.channels) if shape.rotated else None,
            nn.LayerNorm(layer.channels, eps=1e-6) if shape.norm else None,
            shape.gelu,
        )
    )
    x = torch.randn(1, layer.tokens, layer.channels, generator=generator)
    residual = torch.zeros(1, layer.tokens, outputs) if shape.residual else None
    inputs = (x,) if residual is None else (x, residual)
    return Probe(lambda: linear(x, panel, outputs, residual), inputs)


def _attention(layer: Layer, scheme: Scheme, setting: Setting, generator: torch.Generator) -> Probe:
    assert setting.activation_bits is not None  # every activation has bits
    token = SliceQuantizer(setting.activation_bits, HEAD_TOKENS)
    value = SliceQuantizer(setting.activation_bits, HEAD_CHANNELS)
    softmax = _quantizer(layer, scheme, setting, layer.tokens, generator)
    panel = attention_panel(layer.heads, layer.outputs, (token, token, value, softmax))
    size = (1, layer.tokens // layer.heads, 3 * layer.heads * layer.outputs)
    qkv = torch.randn(*size, generator=generator)
    return Probe(lambda: self_attention(qkv, panel), (qkv,))


def _quantizer(
    layer: Layer, scheme: Scheme, setting: Setting, slices: int, generator: torch.Generator
) -> Quantizer:
    """Return a quantizer of the layer's grouping; fitted bounds are those of random ranges."""
    assert setting.activation_bits is not None
    grouping, groups = grouping_of(layer, scheme), setting.num_groups or 1
    ranges = None
    if isinstance(grouping, FittedGrouping):
        slices = 1 if layer.kind is Kind.EMBEDDING else slices
        ranges = torch.rand(4, slices, 2, generator=generator).cumsum(-1)
        ranges[..., 0] *= 0 if layer.kind is Kind.SOFTMAX else -1
    return grouping.fit(ranges, (groups,), setting.activation_bits)[groups]
