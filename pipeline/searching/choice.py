"""The choice of the final round: the finalist of least expected KL, and who is still in doubt.

A finalist's mean over some images has luck in it, and the least of many means has the most. So
what a finalist shows is weighed against what finalists are like (empirical Bayes). The square root
of the KL of finalist i on image j is taken as

    x_ij = image_j + theta_i + e_ij,   e_ij ~ N(0, noise),
    theta_i ~ N(slope z_i, spread),    slope ~ N(0, trust),

with z_i the logarithm of the sum of sensitivities, standardised. `spread` is the variance of
finalists beyond the images' noise, `trust` says how much the sensitivities explain of it. Neither
is known: the answer is the mean over all of both, each as likely as it makes the images. Where
finalists hardly differ the sensitivities decide; where they differ the images do. The square root
has nearly the same noise for every image. An image's own effect is the same for all that saw it,
and drops out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from pipeline.intervals import CONFIDENCE, interval

Basis = Float[np.ndarray, "finalists contrasts"]
Vector = Float[np.ndarray, " contrasts"]
Square = Float[np.ndarray, "contrasts contrasts"]
Kls = Mapping[int, Sequence[float]]
"""Trial number -> KL of each image that it saw, the first ones, in nats."""

RATIOS = tuple((half / 2) ** 2 for half in range(17))
"""Variances that are tried, over the mean noise of a finalist: standard deviations from 0 to 8."""
TINY = 1e-12
"""A sum of sensitivities whose logarithm is safe, and a noise that is."""


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
    def of(cls, kls: Kls, predicted: Mapping[int, float] | None = None) -> "Estimate":
        """Estimate finalists from the images that each saw first.

        Args:
            kls: trial number -> KL of each image that it saw, in nats.
            predicted: trial number -> sum of sensitivities in nats, where they are known.
        """
        shown = _shown(kls)
        if shown is None:
            return cls(dict.fromkeys(kls, 0.0), np.zeros((len(kls), len(kls))))
        basis, means, noise = shown
        z = basis.T @ _standard([predicted[n] for n in kls] if predicted else [1.0] * len(kls))
        mean, covariance = _posterior(means, noise, z)
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


def choose(kls: Kls, predicted: Mapping[int, float] | None = None) -> int:
    """Return the finalist of least expected KL that no other is clearly better than.

    It is one of those that saw the most images, unless another is clearly better than each of
    them. Of equals the one of the least sum of sensitivities is taken, then that of the least KL,
    then the earlier one.

    >>> kls = {3: (0.81, 1.0, 1.21, 0.9), 7: (0.36, 0.49, 0.64, 0.5)}
    >>> choose(kls), choose({3: (0.5,), 7: (0.1,)}, {3: 0.2, 7: 0.3})
    (7, 3)
    """
    expected, most = Estimate.of(kls, predicted).mean, max(map(len, kls.values()))
    sound = [one for one in kls if not any(_clearly_better(kls[o], kls[one]) for o in kls)]
    last = [number for number in sound if len(kls[number]) == most]

    def order(number: int) -> tuple[float, float, float, int]:
        prediction = predicted[number] if predicted else 0.0
        return expected[number], prediction, fmean(kls[number]), number

    return min(last or sound or kls, key=order)


def in_doubt(
    few: Sequence[int], kls: Kls, predicted: Mapping[int, float] | None = None
) -> list[int]:
    """Return those of `few` that may be the best still: not surely worse than the expected best.

    >>> in_doubt([3, 7], {3: (0.81, 1.0, 1.21, 0.9), 7: (0.36, 0.49, 0.64, 0.5)})
    [7]
    """
    estimate = Estimate.of(kls, predicted)
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


def _standard(predicted: Sequence[float]) -> Float[np.ndarray, " finalists"]:
    """Return logarithms of sums of sensitivities with mean 0 and variance 1, or 0 if all alike."""
    logs = np.log(np.maximum(predicted, TINY))
    deviations = logs - logs.mean()
    return deviations / max(float(logs.std()), TINY) if np.ptp(logs) > TINY else 0 * logs


def _posterior(means: Vector, noise: Square, z: Vector) -> tuple[Vector, Square]:
    """Return mean and covariance over all priors, each as likely as it makes the means."""
    unit, one = np.trace(noise) / len(means), np.eye(len(means))
    weights, centres, squares = [], [], []
    for spread, trust in product(RATIOS, RATIOS if z.any() else RATIOS[:1]):
        prior = unit * (spread * one + trust * np.outer(z, z))
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
