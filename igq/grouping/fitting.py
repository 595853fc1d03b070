"""Fit the bounds of groups, once, to the ranges of the calibration images.

Eq. 4 is minimised by alternating assignment and update (Eq. 6): k-means in the plane of minimum and
maximum, for every number of groups from the same starting bounds.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from igq.errors import InvalidArgumentError
from igq.layer import check_num_groups
from igq.scheme import Assignment

MAX_STEPS = 50
"""The most steps of assignment and update; fitting stops at the first that moves no slice."""
CELLS = 512
"""Ranges are fitted after rounding to this many levels: our choice, so that fitting is quick."""
MARGIN = 1.5
"""Standard deviations by which bounds lie outside the mean of their members (our choice)."""


def fit_bounds(
    ranges: Float[Tensor, "images slices 2"],
    num_groups: Sequence[int],
    assignment: Assignment = Assignment.NEAREST,
) -> dict[int, tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]]:
    """Fit lower and upper bounds for every number of groups to ranges of calibration images.

    One group is the plain layer-wise quantizer, with the global minimum and maximum as bounds;
    more groups take the mean of their members' ranges, which minimises Eq. 4. Where slices will
    pick by expected error, bounds lie `MARGIN` deviations outside it, so that most members fit in.

    Raises:
        InvalidArgumentError: `num_groups` out of range, or a range is not finite.

    >>> ranges = torch.tensor([[[0.0, 1.0], [0.0, 1.2], [-8.0, 8.0]]])
    >>> fit_bounds(ranges, [2])[2][1].tolist()
    [8.0, 1.100000023841858]
    """
    check_num_groups(num_groups)
    if ranges.numel() == 0:
        raise InvalidArgumentError("`ranges` must hold at least 1 range, but hold 0.")
    if not ranges.isfinite().all():
        raise InvalidArgumentError("`ranges` must be finite, but hold NaN or infinity.")
    points = ranges.reshape(-1, 2).double()
    cells, weights = _condense(points)
    starts = _spread_out(cells, weights, max(num_groups))

    def fitted(g: int) -> tuple[Tensor, Tensor]:
        bounds = _envelope(points)
        if g > 1:
            bounds = _alternate(cells, weights, starts[:g])
            if assignment is Assignment.LEAST_ERROR:
                outwards = bounds.new_tensor([-MARGIN, MARGIN])
                bounds = bounds + outwards * _deviation(cells, weights, bounds)
        lower, upper = bounds.to(ranges.dtype).unbind(-1)
        return lower.contiguous(), upper.contiguous()

    return {g: fitted(g) for g in num_groups}


def _envelope(points: Float[Tensor, "points 2"]) -> Float[Tensor, "1 2"]:
    return torch.stack((points[:, 0].min(), points[:, 1].max()))[None]


def _condense(
    points: Float[Tensor, "points 2"],
) -> tuple[Float[Tensor, "cells 2"], Float[Tensor, "cells 1"]]:
    """Merge ranges within 1 / CELLS of each other into their mean, so that fitting is linear."""
    low = points.amin(0)
    width = (points.amax(0) - low).max().clamp(min=torch.finfo(points.dtype).tiny)
    column, row = ((points - low) / width * (CELLS - 1)).round().long().unbind(-1)
    cell, counts = torch.unique(column * CELLS + row, return_inverse=True, return_counts=True)[1:]
    weights = counts[:, None].to(points)
    return points.new_zeros(len(counts), 2).index_add_(0, cell, points) / weights, weights


def _spread_out(
    points: Float[Tensor, "points 2"], weights: Float[Tensor, "points 1"], count: int
) -> Float[Tensor, "count 2"]:
    """Draw starting bounds far from each other (k-means++ with a fixed seed; our choice).

    The first g of them are the start for g groups, so that one draw serves every candidate.
    """
    generator = torch.Generator(points.device).manual_seed(0)
    chosen = [points[(points - points.mean(0)).square().sum(-1).argmax()]]
    distance = (points - chosen[0]).square().sum(-1)
    for _ in range(count - 1):
        odds = distance * weights[:, 0]
        if odds.sum() <= 0:  # fewer different ranges than groups: the rest stay unused
            chosen.append(chosen[-1])
            continue
        chosen.append(points[torch.multinomial(odds, 1, generator=generator)[0]])
        distance = distance.minimum((points - chosen[-1]).square().sum(-1))
    return torch.stack(chosen)


def _alternate(
    points: Float[Tensor, "points 2"],
    weights: Float[Tensor, "points 1"],
    bounds: Float[Tensor, "groups 2"],
) -> Float[Tensor, "groups 2"]:
    """Assign each range to its nearest bounds, move bounds to their members' mean (Eq. 6)."""
    weighted = torch.cat((points * weights, weights), dim=-1)
    previous: Tensor | None = None
    for _ in range(MAX_STEPS):
        members = _nearest(points, bounds)
        if previous is not None and torch.equal(members, previous):
            break
        sums = bounds.new_zeros(len(bounds), 3).index_add_(0, members, weighted)
        bounds = torch.where(sums[:, 2:] > 0, sums[:, :2] / sums[:, 2:].clamp(min=1), bounds)
        previous = members
    return bounds


def _deviation(
    points: Float[Tensor, "points 2"],
    weights: Float[Tensor, "points 1"],
    bounds: Float[Tensor, "groups 2"],
) -> Float[Tensor, "groups 2"]:
    """Return the standard deviation of each group's members from its bounds; 0 without members."""
    members = _nearest(points, bounds)
    squares = (points - bounds[members]).square() * weights
    sums = bounds.new_zeros(len(bounds), 3)
    sums.index_add_(0, members, torch.cat((squares, weights), dim=-1))
    return (sums[:, :2] / sums[:, 2:].clamp(min=1)).sqrt()


def _nearest(
    points: Float[Tensor, "points 2"], bounds: Float[Tensor, "groups 2"]
) -> Int[Tensor, " points"]:
    # |p - b|^2 without |p|^2, which no assignment depends on; the least of a row is found fast
    return torch.addmm(bounds.square().sum(-1), points, bounds.T, alpha=-2).argmin(-1)
