"""How groups are fitted and picked: each choice beside the one that is taken, over seeds.

    python -m benchmarks.fitting --images 300 --seeds 3

Weights are in full precision, so that only activations differ. A seed draws the calibration images.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

import igq
from benchmarks.real import (
    ASSETS,
    CALIBRATION_IMAGES,
    Bench,
    activations,
    arguments_for,
    bench,
    machine,
)
from igq import Assignment, Ranges, Slices
from igq.affine import affine_parameters, fake_quantize
from igq.evaluation import log_probabilities, shifts
from igq.grouping import GroupQuantizer, Quantizer, assign
from igq.vit import assemble, quantize_weights
from pipeline.data import Preprocessing, draw, open_source

MOST_IMAGES = 64
SHARES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
"""Of a group's bounds, tried for least squared error of the values."""
Quantizers = dict[str, Quantizer]


def by_error(fitted: Mapping[str, Quantizer]) -> Quantizers:
    """The same bounds, picked by the expected error."""

    def changed(q: Quantizer) -> Quantizer:
        if isinstance(q, GroupQuantizer) and q.slices is Slices.CHANNELS:
            return replace(q, assignment=Assignment.LEAST_ERROR)
        return q

    return {name: changed(q) for name, q in fitted.items()}


def envelopes(ranges: Ranges, fitted: Mapping[str, Quantizer]) -> Quantizers:
    """Groups whose bounds hold every member's range."""

    def enveloping(name: str, q: Quantizer) -> Quantizer:
        if not isinstance(q, GroupQuantizer) or q.num_groups == 1:
            return q
        points = ranges[name].flatten(0, 1)
        group = assign(points, q.groups, Assignment.NEAREST)
        lower, upper = q.lower.clone(), q.upper.clone()
        for g in group.unique():
            members = points[group == g]
            lower[g], upper[g] = members[:, 0].min(), members[:, 1].max()
        return replace(q, lower=lower, upper=upper)

    return by_error({name: enveloping(name, q) for name, q in fitted.items()})


def least_squares(model: nn.Module, images: Tensor, fitted: Mapping[str, Quantizer]) -> Quantizers:
    """Groups whose bounds are the share of the given ones with the least squared error."""
    seen = activations(model, images)

    def shrunk(x: Tensor, q: Quantizer) -> Quantizer:
        if not isinstance(q, GroupQuantizer) or q.num_groups == 1:
            return q
        group = q.assign(x)
        least, lower, upper = torch.full((q.num_groups,), torch.inf), q.lower, q.upper
        for share in SHARES:
            scale, zero_point = affine_parameters(share * q.lower, share * q.upper, q.bits)
            error = (fake_quantize(x, scale[group], zero_point[group], q.bits) - x).square()
            each = error.mean(q.slices.reduced(x.ndim), keepdim=True).flatten()
            total = torch.zeros(q.num_groups).index_add_(0, group.flatten(), each)
            lower = torch.where(total < least, share * q.lower, lower)
            upper = torch.where(total < least, share * q.upper, upper)
            least = total.minimum(least)
        return replace(q, lower=lower, upper=upper)

    return {name: shrunk(seen[name], q) for name, q in fitted.items()}


def at_random(ranges: Ranges, fitted: Mapping[str, Quantizer], groups: int) -> Quantizers:
    """Groups at ranges drawn at random: no start that is spread out, no step of assignment."""
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, q: Quantizer) -> Quantizer:
        if not isinstance(q, GroupQuantizer) or q.num_groups == 1:
            return q
        points = ranges[name].flatten(0, 1)
        lower, upper = points[torch.randperm(len(points), generator=generator)[:groups]].unbind(-1)
        return replace(q, lower=lower.contiguous(), upper=upper.contiguous())

    return {name: drawn(name, q) for name, q in fitted.items()}


def choices(
    given: Bench, images: Float[Tensor, "drawn channels height width"], groups: int, bits: int
) -> dict[str, nn.Module]:
    """The model with quantized activations, for each way of fitting and picking groups."""
    model, taken = given.model, images[:CALIBRATION_IMAGES]

    def fitted(
        observed: nn.Module, count: int, assignment: Assignment = Assignment.LEAST_ERROR
    ) -> tuple[Ranges, Quantizers]:
        ranges = igq.observe(observed, images[:count], assignment=assignment)
        candidates = igq.fit(ranges, [groups], bits)
        return ranges, candidates.select(igq.uniform(candidates.layers, groups))

    _, wider = fitted(model, CALIBRATION_IMAGES)
    ranges, mean = fitted(model, CALIBRATION_IMAGES, Assignment.NEAREST)
    rounded = copy.deepcopy(model)
    for name, weight in quantize_weights(model, bits).items():
        rounded.get_parameter(f"{name}.weight").data = weight.dequantize()
    made: dict[str, Callable[[], Quantizers]] = {
        "taken: a margin outside the mean, least expected error, 32 images": lambda: wider,
        "the paper's: mean of members, nearest range": lambda: mean,
        "bounds: mean of members": lambda: by_error(mean),
        "bounds: envelope of members": lambda: envelopes(ranges, mean),
        "bounds: least squared error": lambda: least_squares(model, taken, wider),
        "bounds: ranges drawn at random": lambda: at_random(ranges, wider, groups),
        "8 images": lambda: fitted(model, 8)[1],
        "16 images": lambda: fitted(model, 16)[1],
        "observed with quantized weights": lambda: fitted(rounded, CALIBRATION_IMAGES)[1],
        "64 images": lambda: fitted(model, MOST_IMAGES)[1],
    }
    return {name: assemble(model, quantizers(), {}) for name, quantizers in made.items()}


def main() -> None:
    """Print the table."""
    parser = arguments_for(__doc__ or "", images=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    given = bench(options)
    source = open_source(str(ASSETS / "images" / "train1000"), Preprocessing.of(given.model))
    kls: dict[str, list[float]] = {}
    moved: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        images = draw({"calibration": (source, MOST_IMAGES, MOST_IMAGES)}, seed)["calibration"]
        for name, made in choices(given, images.values, options.groups, options.bits).items():
            outputs = log_probabilities(made, given.images)
            kl = igq.evaluation.divergences(given.reference, outputs).mean().item()
            kls.setdefault(name, []).append(kl)
            moved.setdefault(name, []).append(shifts(given.reference, outputs).log().mean().item())
    print(
        f"{options.model}, A{options.bits}, {options.groups} groups, {options.images} images; "
        f"{machine()}"
    )
    print("| fitted and picked | KL with each seed | mean | log shift, mean |\n|---|---|---|---|")
    for name, each in kls.items():
        shown = ", ".join(f"{kl:.3f}" for kl in each)
        print(f"| {name} | {shown} | {fmean(each):.3f} | {fmean(moved[name]):+.3f} |")


if __name__ == "__main__":
    main()
