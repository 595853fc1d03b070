"""The choice of the final round: the finalist of least expected KL, and who is still in doubt.

A finalist's mean over some images has luck in it, and the least of many means has the most. So
what a finalist shows is weighed against what finalists are like (empirical Bayes). The square root
of the KL of finalist i on image j is taken as

    x_ij = image_j + theta_i + e_ij,            e_ij ~ N(0, noise),
    theta_i = slope z_i + sum_l w_il d_il,      slope ~ N(0, trust),   d_il ~ N(0, spread),

with z_i the logarithm of the sum of sensitivities, standardised, and w_il the share of layer l in
that sum. d_il is the relative error of the sensitivity of the layer's setting: finalists that give
a layer the same setting have it in common, so that those which differ in few layers of small
sensitivity can hardly differ in KL. `spread` is the variance of these errors, `trust` says how
much the sum explains. Neither is known: the answer is the mean over all of both, each as likely as
it makes the images. Where finalists are alike the sensitivities decide; where they differ the
images do. The square root has nearly the same noise for every image. An image's own effect is the
same for all that saw it, and drops out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from pipeline.intervals import CONFIDENCE, interval

Basis = Float[np.ndarray, "finalists contrasts"]
Vector = Float[np.ndarray, " contrasts"]
Square = Float[np.ndarray, "contrasts contrasts"]
Kls = Mapping[int, Sequence[float]]
"""Trial number -> KL of each image that it saw, the first ones, in nats."""
Sensitivities = Mapping[Any, float]
"""(Layer, setting) -> sensitivity in nats, for the settings of an allocation."""
Known = Mapping[int, Sensitivities]
"""Trial number -> the sensitivities of its allocation's settings."""

RATIOS = tuple((half / 2) ** 2 for half in range(17))
"""Variances that are tried, over the mean noise of a finalist: standard deviations from 0 to 8."""
TINY = 1e-12
"""A sensitivity whose logarithm is safe, and a noise that is."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A normal distribution of how finalists differ, as the square root of KL.

    >>> kls = {3: (0.81, 1.0, 1.21, 0.9), 7: (0.36, 0.49, 0.64, 0.5)}
    >>> found = Estimate.of(kls)
    >>> found.mean[3] > found.mean[7], round(found.chance_below(7, 3), 2)
    (True, 1.0)
    """

    mean: Mapping[int, float]
    """Trial number -> deviation from the finalists' mean."""
    covariance: Float[np.ndarray, "finalists finalists"]
    """In the order of `mean`."""

    @classmethod
    def of(cls, kls: Kls, known: Known | None = None) -> "Estimate":
        """Estimate finalists from the images that each saw first.

        Args:
            kls: trial number -> KL of each image that it saw, in nats.
            known: the sensitivities of each finalist's settings, where there are any.
        """
        shown = _shown(kls)
        if shown is None:
            return cls(dict.fromkeys(kls, 0.0), np.zeros((len(kls), len(kls))))
        basis, means, noise = shown
        shares, sums = _shares([known[n] if known else {n: 1.0} for n in kls])
        shares, z = basis.T @ shares, basis.T @ _standard(sums)
        mean, covariance = _posterior(means, noise, z, shares @ shares.T)
        found = (basis @ mean).tolist()
        return cls(dict(zip(kls, found, strict=True)), basis @ covariance @ basis.T)

    def chance_below(self, one: int, other: int) -> float:
        """Return the probability that the KL of one is less than the other's."""
        order = list(self.mean)
        contrast = np.zeros(len(order))
        contrast[order.index(other)], contrast[order.index(one)] = 1, -1
        variance = float(contrast @ self.covariance @ contrast)
        difference = self.mean[other] - self.mean[one]
        return float(norm.cdf(difference / max(variance, TINY) ** 0.5))


def choose(kls: Kls, known: Known | None = None) -> int:
    """Return the finalist of least expected KL that no other is clearly better than.

    It is one of those that saw the most images, unless another is clearly better than each of
    them. Of equals the one of the least sum of sensitivities is taken, then that of the least KL,
    then the earlier one.

    >>> kls = {3: (0.81, 1.0, 1.21, 0.9), 7: (0.36, 0.49, 0.64, 0.5)}
    >>> choose(kls), choose({3: (0.5,), 7: (0.1,)}, {3: {"fc": 0.2}, 7: {"fc": 0.3}})
    (7, 3)
    """
    expected, most = Estimate.of(kls, known).mean, max(map(len, kls.values()))
    sound = [one for one in kls if not any(_clearly_better(kls[o], kls[one]) for o in kls)]
    last = [number for number in sound if len(kls[number]) == most]

    def order(number: int) -> tuple[float, float, float, int]:
        prediction = total(known[number]) if known else 0.0
        return expected[number], prediction, fmean(kls[number]), number

    return min(last or sound or kls, key=order)


def in_doubt(few: Sequence[int], kls: Kls, known: Known | None = None) -> list[int]:
    """Return those of `few` that may be the best still: not surely worse than the expected best.

    >>> in_doubt([3, 7], {3: (0.81, 1.0, 1.21, 0.9), 7: (0.36, 0.49, 0.64, 0.5)})
    [7]
    """
    estimate = Estimate.of(kls, known)
    leader = min(few, key=lambda number: (estimate.mean[number], number))
    least = (1 - CONFIDENCE) / 2
    return [n for n in few if n == leader or estimate.chance_below(n, leader) > least]


def _clearly_better(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether the interval of the difference on shared images lies below 0."""
    return interval([a - b for a, b in zip(one, other, strict=False)]).high < 0


def _shown(kls: Kls) -> tuple[Basis, Vector, Square] | None:
    """Return a basis of contrasts, their least-squares means, and the noise of these.

    None where too few images were seen to tell noise from finalists.
    """
    count, most = len(kls), max(map(len, kls.values()))
    x = np.array([[*np.sqrt(np.maximum(row, 0)), *[np.nan] * (most - len(row))]
                  for row in kls.values()])  # fmt: skip
    seen = ~np.isnan(x)
    shared = seen.sum(axis=0)
    centred = np.where(seen, x - np.nanmean(x, axis=0), 0.0)
    information = np.diag(seen.sum(axis=1)) - (seen / shared) @ seen.T
    freedom = int((shared - 1).sum()) - (count - 1)
    if freedom < 1:
        return None
    basis = np.linalg.qr(np.eye(count) - 1 / count)[0][:, : count - 1]
    inverse = np.linalg.inv(basis.T @ information @ basis)
    moment = basis.T @ centred.sum(axis=1)
    means = inverse @ moment
    noise = max(((centred**2).sum() - moment @ means) / freedom, TINY)
    return basis, means, noise * inverse


def total(sensitivities: Sensitivities) -> float:
    """Return the sum of the sensitivities of an allocation's settings, in nats.

    >>> total({"fc": 0.0}) > 0
    True
    """
    return sum(max(nats, TINY) for nats in sensitivities.values())


def _shares(
    known: Sequence[Sensitivities],
) -> tuple[Float[np.ndarray, "finalists settings"], Float[np.ndarray, " finalists"]]:
    """Return each setting's share in a finalist's sum, 0 where it has another one; and the sums."""
    settings = list(dict.fromkeys(setting for row in known for setting in row))
    sums = np.array([total(row) for row in known])
    nats = [[max(row[one], TINY) if one in row else 0.0 for one in settings] for row in known]
    return np.array(nats) / sums[:, None], sums


def _standard(sums: Float[np.ndarray, " finalists"]) -> Float[np.ndarray, " finalists"]:
    """Return logarithms of sums of sensitivities with mean 0 and variance 1, or 0 if all alike."""
    logs = np.log(sums)
    deviations: Float[np.ndarray, " finalists"] = logs - logs.mean()
    return deviations / max(float(logs.std()), TINY) if np.ptp(logs) > TINY else 0 * deviations


def _posterior(means: Vector, noise: Square, z: Vector, shared: Square) -> tuple[Vector, Square]:
    """Return mean and covariance over all priors, each as likely as it makes the means.

    `shared` are the products of what settings take part with in two contrasts.
    """
    unit, errors = np.trace(noise) / len(means), shared * len(means) / np.trace(shared)
    weights, centres, squares = [], [], []
    for spread, trust in product(RATIOS, RATIOS if z.any() else RATIOS[:1]):
        prior = unit * (spread * errors + trust * np.outer(z, z))
        explained = np.linalg.solve(noise + prior, means)
        if trust * (z @ explained) < 0:
            continue
        determinant = np.linalg.slogdet(noise + prior)[1]
        weights.append(-(determinant + means @ explained) / 2)
        centres.append(prior @ explained)
        inner = prior - prior @ np.linalg.solve(noise + prior, prior)
        squares.append(inner + np.outer(centres[-1], centres[-1]))
    shares = np.exp(np.array(weights) - max(weights))
    mean = np.average(centres, axis=0, weights=shares)
    return mean, np.average(squares, axis=0, weights=shares) - np.outer(mean, mean)
