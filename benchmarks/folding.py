"""Scales folded from a LayerNorm into the next linear layer, so that channels' ranges are alike.

    python -m benchmarks.folding --images 300

A channel's LayerNorm output is divided by a power of its mean range over the calibration images,
and the next layer's weights are multiplied by it: in full precision nothing changes. Weights as
they are, and rounded but not tuned (`igq.correct`).
"""

import copy

import torch
from torch import nn

import igq
from benchmarks.real import arguments, bench, machine
from igq.evaluation import log_probabilities
from igq.vit import assemble

POWERS = (0.0, 0.25, 0.5, 1.0)
FOLDED = {"norm1": "attn.qkv", "norm2": "mlp.fc1"}
"""In each block: the LayerNorm, and the linear layer whose input it is."""


def folded(model: nn.Module, ranges: igq.Ranges, power: float) -> nn.Module:
    """The same function, with ranges of the linear layers' inputs that differ less."""
    made = copy.deepcopy(model)
    for layer in igq.layers(model):
        for norm, linear in FOLDED.items():
            if not layer.name.endswith(linear):
                continue
            block = layer.name.removesuffix(linear)
            width = ranges[layer.name].diff(dim=-1)[..., 0].mean(0).clamp(min=1e-6)
            scale = (width / width.log().mean().exp()) ** power
            made.get_parameter(f"{block}{norm}.weight").data /= scale
            made.get_parameter(f"{block}{norm}.bias").data /= scale
            made.get_parameter(f"{layer.name}.weight").data *= scale
    return made


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "", images=300)
    given = bench(options)
    ranges = igq.observe(given.model, given.calibration)
    print(
        f"{options.model}, {options.bits} bits, {options.groups} groups, {options.images} images; "
        f"{machine()}"
    )
    print("| power of the range | weights | KL | top-1 kept |\n|---|---|---|---|")
    for power in POWERS:
        model = folded(given.model, ranges, power)
        assert torch.allclose(
            log_probabilities(model, given.images[:8]), given.reference[:8], atol=1e-2
        )
        its_ranges = igq.observe(model, given.calibration)
        candidates = igq.fit(its_ranges, [options.groups], options.bits)
        chosen = candidates.select(igq.uniform(candidates.layers, options.groups))
        print(given.row(f"{power} | full precision", assemble(model, chosen, {})))
        rounded = igq.correct(model, candidates, given.calibration, options.bits, steps=0)
        made = assemble(rounded.model, chosen, rounded.weights)
        print(given.row(f"{power} | rounded", made), flush=True)


if __name__ == "__main__":
    main()
