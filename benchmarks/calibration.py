"""Time of fitting every candidate, beside that of the plainest k-means.

    python -m benchmarks.calibration --model vit_tiny_patch16_224

Groups are those of the paper, whose bounds are fitted. The plain k-means runs over all ranges, with
distances as a tensor of points x groups x 2 and starting bounds drawn at random. Quality is the
summed squared distance of ranges to their group's bounds (Eq. 4), ours over plain's, averaged over
layers. Growth is ours with fewer and more images.
"""

import statistics
import time

import torch
from torch import Tensor

import igq
from benchmarks.real import CALIBRATION_IMAGES, arguments, bench, machine
from igq.grouping.fitting import MAX_STEPS

NUM_GROUPS = (2, 4, 6, 8, 10, 12, 16, 24)
GROWTH = (8, 16, 32, 64)
"""Numbers of images; of the more than calibration has, the first of those to evaluate on."""


def plain_kmeans(points: Tensor, groups: int) -> Tensor:
    """Alternate assignment and update, from starting points drawn at random."""
    generator = torch.Generator().manual_seed(0)
    bounds = points[torch.randperm(len(points), generator=generator)[:groups]]
    for _ in range(MAX_STEPS):
        members = (points[:, None] - bounds[None]).square().sum(-1).argmin(1)
        moved = torch.stack(
            [
                points[members == g].mean(0) if (members == g).any() else bounds[g]
                for g in range(len(bounds))
            ]
        )
        if torch.equal(moved, bounds):
            break
        bounds = moved
    return bounds


def objective(points: Tensor, bounds: Tensor) -> float:
    """Return the summed squared distance of each range to the nearest bounds (Eq. 4)."""
    return (points[:, None] - bounds[None]).square().sum(-1).amin(1).sum().item()


def main() -> None:
    """Print seconds of both, their ratio, the quality and the ranges' memory."""
    options = arguments(__doc__, images=max(GROWTH) - CALIBRATION_IMAGES)
    given = bench(options)
    start = time.perf_counter()
    ranges = igq.observe(given.model, given.calibration, igq.Scheme.PAPER)
    observed = time.perf_counter() - start
    start = time.perf_counter()
    candidates = igq.fit(ranges, NUM_GROUPS, options.bits)
    ours = time.perf_counter() - start
    quality, plain = [], 0.0
    for layer in igq.grouped(ranges.layers):
        points = ranges[layer.name].reshape(-1, 2)
        for groups in NUM_GROUPS:
            start = time.perf_counter()
            bounds = plain_kmeans(points, groups)
            plain += time.perf_counter() - start
            fitted = candidates.quantizers[layer.name][groups]
            assert isinstance(fitted, igq.GroupQuantizer)
            mine = torch.stack((fitted.lower, fitted.upper), dim=-1)
            quality.append(objective(points, mine) / objective(points, bounds))
    mebibytes = sum(r.numel() * r.element_size() for r in ranges.values.values()) / 2**20
    layers = len(igq.grouped(ranges.layers))
    print(f"{options.model}: {layers} layers x {len(NUM_GROUPS)} numbers of groups; {machine()}")
    print(f"ranges of {len(given.calibration)} images: {mebibytes:.1f} MiB, {observed:.1f} s")
    print(f"fitting: {ours:.1f} s, plain k-means {plain:.1f} s, ratio {plain / ours:.1f}")
    print(f"objective, ours over plain's: mean {statistics.fmean(quality):.3f}")
    images = torch.cat((given.calibration, given.images))
    for count in (count for count in GROWTH if count <= len(images)):
        ranges = igq.observe(given.model, images[:count], igq.Scheme.PAPER)
        slices = sum(ranges[layer.name].shape[1] for layer in igq.grouped(ranges.layers))
        start = time.perf_counter()
        igq.fit(ranges, NUM_GROUPS, options.bits)
        seconds = time.perf_counter() - start
        print(f"{count} images, {count * slices} slices: {seconds:.1f} s")


if __name__ == "__main__":
    main()
