"""Weights corrected in closed form, beside the nearest codes: tried, not taken (docs/decisions.md).

    python -m benchmarks.corrected_weights --model vit_tiny_patch16_224

Layer by layer, with X the layer's input in the full-precision model and X^ its quantized input in
the model whose layers before it are already corrected:

    ridge   W* = W + argmin_D |X W' - X^ (W + D)'|^2 + ridge |D|^2      against activation error
    GPTQ    codes of W* one input channel after the other, the error of each pushed onto the next
    bias    the mean output of the layer is kept
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import Bench, arguments, bench, machine, uniform_quantizers
from igq.affine import QuantizedTensor, quantize_codes
from igq.grouping import Quantizer
from igq.modules import Linear
from igq.vit import assemble, quantize_weights, stages, with_slots
from igq.weights import quantize_weight

DAMPING = 0.01
COLUMNS_TOGETHER = 64


@dataclass(frozen=True)
class Correction:
    """What is corrected; `ridge` is a share of the mean of X^'X^'s diagonal, None: no ridge."""

    ridge: float | None
    bias: bool


class Kept(nn.Module):
    """Keeps what passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def rounded(weight: Tensor, gram: Tensor, bits: int) -> QuantizedTensor:
    """GPTQ: codes whose outputs err least, given the inputs' Gram matrix."""
    nearest = quantize_weight(weight.float(), bits)
    scale, zero_point = nearest.scale.double()[:, None], nearest.zero_point.double()[:, None]
    gram = gram + torch.eye(len(gram)) * DAMPING * gram.diagonal().mean()
    order = gram.diagonal().argsort(descending=True)
    left, gram = weight[:, order].clone(), gram[order][:, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(left)
    for first in range(0, len(gram), COLUMNS_TOGETHER):
        last = min(first + COLUMNS_TOGETHER, len(gram))
        errors = torch.zeros_like(left[:, first:last])
        for c in range(first, last):
            column = left[:, c : c + 1]
            codes[:, c : c + 1] = quantize_codes(column, scale, zero_point, bits)
            error = column - (codes[:, c : c + 1] - zero_point) * scale
            errors[:, c - first : c - first + 1] = error / factor[c, c]
            left[:, c:last] -= errors[:, c - first : c - first + 1] @ factor[c : c + 1, c:last]
        left[:, last:] -= errors @ factor[first:last, last:]
    ordered = torch.empty_like(codes)
    ordered[:, order] = codes
    return QuantizedTensor(ordered.to(torch.uint8), nearest.scale, nearest.zero_point, bits)


def correct(source: Any, x: Tensor, given: Tensor, bits: int, how: Correction) -> Linear:
    """A layer with corrected weights, for inputs `x` in full precision and `given` quantized."""
    weight: Tensor = source.weight.double()
    bias: Tensor = source.bias.double()
    x, given = x.flatten(0, -2).double(), given.flatten(0, -2).double()
    centred, centred_given = x - x.mean(0), given - given.mean(0)
    gram = centred_given.T @ centred_given
    wanted = weight
    if how.ridge is not None:
        regular = gram + torch.eye(len(gram)) * how.ridge * gram.diagonal().mean()
        missed = centred_given.T @ ((centred - centred_given) @ weight.T)
        wanted = weight + torch.linalg.solve(regular, missed).T
    codes = rounded(wanted, gram / len(x), bits)
    layer = Linear(source, source.activation, codes)
    if how.bias:
        kept = bias + weight @ x.mean(0) - codes.dequantize().double() @ given.mean(0)
        layer.bias = nn.Parameter(kept.float(), requires_grad=False)
    return layer


@torch.inference_mode()
def corrected(
    given: Bench, quantizers: dict[str, Quantizer], bits: int, how: Correction
) -> nn.Module:
    """The model with the weights of its blocks corrected, the others the nearest ones."""
    inputs = {layer.name: Kept() for layer in igq.layers(given.model)}
    full = with_slots(given.model, lambda layer: inputs[layer.name])
    nearest = quantize_weights(given.model, bits)
    outside = {name: w for name, w in nearest.items() if not name.startswith("blocks.")}
    made = assemble(given.model, quantizers, outside)
    state = quantized_state = given.calibration
    for index, step in enumerate(stages(full)):
        next_state = step(state)
        for name in (n for n in nearest if n.startswith(f"blocks.{index - 1}.")):
            layer, kept = made.get_submodule(name), Kept()
            slot = layer.activation
            layer.activation = nn.Sequential(slot, kept)  # type: ignore[arg-type]
            stages(made)[index](quantized_state)
            layer.activation = slot
            made.set_submodule(name, correct(layer, inputs[name].seen, kept.seen, bits, how))
        quantized_state, state = stages(made)[index](quantized_state), next_state
    return made


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=256)
    given = bench(options)
    quantizers = uniform_quantizers(given, options)
    print(f"{options.model}, W{options.bits}A{options.bits}, {options.images} images; {machine()}")
    print("| weights | KL | top-1 kept |\n|---|---|---|")
    nearest = quantize_weights(given.model, options.bits)
    print(given.row("full precision", assemble(given.model, quantizers, {})), flush=True)
    print(given.row("nearest", assemble(given.model, quantizers, nearest)), flush=True)
    for ridge in (None, 0.1, 1.0):
        for bias in (False, True):
            name = "GPTQ" + (f", ridge {ridge}" if ridge else "") + (", bias" if bias else "")
            made = corrected(given, quantizers, options.bits, Correction(ridge, bias))
            print(given.row(name, made), flush=True)


if __name__ == "__main__":
    main()
