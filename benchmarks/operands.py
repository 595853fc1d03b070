"""How q, k and v are best quantized, all else as it is.

    python -m benchmarks.operands --model vit_tiny_patch16_224

A fixed range is that of the calibration images; one "clipped" is shrunk to the least squared
error on them. Axes of q, k and v are (images, heads, tokens, width).
"""

import torch
from torch import Tensor, nn

import igq
from benchmarks.real import Bench, activations, arguments, bench, machine, uniform_quantizers
from igq.affine import affine_parameters, fake_quantize
from igq.grouping import Quantizer
from igq.vit import assemble, quantize_weights

SHRINKAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
FIXED = {
    "one per tensor, fixed": (0, 1, 2, 3),
    "one per head, fixed": (0, 2, 3),
    "one per head and channel, fixed": (0, 2),
}
PER_IMAGE = {
    "one per head, its range in each image": (2, 3),
    "one per head and token, its range in each image": (3,),
    "one per head and channel, its range in each image": (2,),
}


class Fixed(nn.Module):
    """Bounds that do not depend on the image."""

    def __init__(self, lower: Tensor, upper: Tensor, bits: int) -> None:
        super().__init__()
        self.bits, self.parameters_of_bounds = bits, affine_parameters(lower, upper, bits)

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, *self.parameters_of_bounds, self.bits)


class PerImage(nn.Module):
    """Bounds that are the range of what passes."""

    def __init__(self, axes: tuple[int, ...], bits: int) -> None:
        super().__init__()
        self.axes, self.bits = axes, bits

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = x.amin(self.axes, keepdim=True), x.amax(self.axes, keepdim=True)
        return fake_quantize(x, *affine_parameters(lower, upper, self.bits), self.bits)


def clipped(x: Tensor, axes: tuple[int, ...], bits: int) -> Fixed:
    """Fixed bounds, shrunk to the least squared error on `x`."""
    lower, upper = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    best = torch.full_like(lower, torch.inf)
    share = torch.ones_like(lower)
    for s in SHRINKAGES:
        error = (Fixed(s * lower, s * upper, bits)(x) - x).square().mean(axes, keepdim=True)
        share = torch.where(error < best, s, share)
        best = best.minimum(error)
    return Fixed(share * lower, share * upper, bits)


def operands(given: Bench) -> dict[str, Tensor]:
    """What q, k and v are on the calibration images, by layer."""
    seen = activations(given.model, given.calibration)
    heads = [la.name for la in igq.layers(given.model) if la.slices.own_range and not la.weighted]
    return {name: seen[name] for name in heads}


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=256)
    given = bench(options)
    selected = uniform_quantizers(given, options)
    weights = quantize_weights(given.model, options.bits)
    seen = operands(given)
    others: dict[str, Quantizer] = {n: q for n, q in selected.items() if n not in seen}
    print(f"{options.model}, W{options.bits}A{options.bits}, {options.images} images; {machine()}")
    print("| q, k, v | KL | top-1 kept |\n|---|---|---|")

    def show(name: str, slots: dict[str, nn.Module]) -> None:
        quantized = assemble(given.model, others, weights)
        for layer, slot in slots.items():
            quantized.set_submodule(layer, slot)
        print(given.row(name, quantized), flush=True)

    show("not quantized", {})
    for name, axes in FIXED.items():
        lower = {n: x.amin(axes, keepdim=True) for n, x in seen.items()}
        upper = {n: x.amax(axes, keepdim=True) for n, x in seen.items()}
        show(name, {n: Fixed(lower[n], upper[n], options.bits) for n in seen})
        show(f"{name}, clipped", {n: clipped(x, axes, options.bits) for n, x in seen.items()})
    for name, axes in PER_IMAGE.items():
        show(name, {n: PerImage(axes, options.bits) for n in seen})
    show(
        "q and k by token, v by channel, their ranges in each image",
        {n: PerImage((2,) if n.endswith(".v") else (3,), options.bits) for n in seen},
    )


if __name__ == "__main__":
    main()
