"""The effect of each layer's groups, learned from many noisy trials together.

One trial says little: the way a value rounds depends on everything before it, so that a few images
scatter more than good allocations differ. All trials together say more. Near good allocations the
logarithm of an image's logit MSE is taken to be additive over layers,

    log mse(image, allocation) = base(image) + sum_l effect_l / num_groups_l + noise,

so that ridge regression pools all trials, stopped ones too. Unlike the paper's sensitivity (Eq. 9)
an effect is measured while all other layers are quantized. The KL, which few classes decide,
scatters more and replaces the logit MSE only where that was not measured.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg.lapack import dtrtrs

from igq.allocation import Generator

Numbers = Float[np.ndarray, "..."]

SMALLEST = 0.01
"""Added before the logarithm, so that an image without any change does not decide alone."""
TINY = 1e-12
"""A divisor that is safe where all trials are alike."""
SHRINKAGES = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Strengths with which a layer's own effect is held to the shared one, in trials."""
SHARED = 1.0
"""Variance of the effect that all layers share, over a trial's noise."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The observations of trials: a row for each of them."""

    places: Int[np.ndarray, "trials layers"]
    logs: Float[np.ndarray, "trials images"]
    """Logarithm of each image's value; NaN where the trial was stopped before it saw the image."""

    @property
    def deviations(self) -> tuple[Float[np.ndarray, " trials"], Float[np.ndarray, " trials"]]:
        """Each trial's mean deviation from the average of its images, and how many it saw."""
        seen = ~np.isnan(self.logs)
        known = np.where(seen, self.logs, 0.0)
        base = known.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        counts = seen.sum(axis=1).astype(float)
        return (known.sum(axis=1) - seen @ base) / counts, counts


@dataclass(frozen=True, eq=False)
class Effects:
    """A normal distribution of the layers' effects."""

    mean: Float[np.ndarray, " layers"]
    root: Float[np.ndarray, "layers layers"]
    """The root of the covariance: times its transpose."""

    def draw(self, generator: Generator) -> Float[np.ndarray, " layers"]:
        """Draw effects from the distribution."""
        drawn: Numbers = self.mean + self.root @ generator.standard_normal(len(self.mean))
        return drawn


def learn(
    features: Float[np.ndarray, "trials layers"],
    deviations: Float[np.ndarray, " trials"],
    images: Float[np.ndarray, " trials"],
) -> Effects:
    """Learn the layers' effects by Bayesian ridge regression, trials weighted by images seen.

    A layer's effect is the sum of one that all layers share and its own departure from it. The
    size of departures is the one of a few that makes the deviations likeliest (empirical Bayes).
    """
    trials, layers = features.shape
    weights = images / images.mean()
    x = features - np.average(features, axis=0, weights=weights)
    y = deviations - np.average(deviations, weights=weights)
    scale = max(float(np.sqrt((x**2).mean())), TINY)
    x /= scale
    gram, moment, total = x.T @ (weights[:, None] * x), x.T @ (weights * y), weights @ y**2
    fits = []
    for shrinkage in SHRINKAGES:
        # the prior's covariance is 1 / shrinkage on the diagonal, and SHARED everywhere
        spread = 1 + shrinkage * SHARED * layers
        prior = shrinkage * np.eye(layers) - shrinkage**2 * SHARED / spread
        lower = np.linalg.cholesky(gram + prior)
        explained = (dtrtrs(lower.T, moment, trans=1)[0] ** 2).sum()  # lower times it is moment
        noise = max((total - explained) / (trials - 1), TINY)
        unlikely = np.log(spread) - layers * np.log(shrinkage) + (trials - 1) * np.log(noise)
        fits.append((unlikely + 2 * np.log(np.diag(lower)).sum(), lower))
    root = np.linalg.inv(min(fits, key=lambda fit: fit[0])[1]).T
    mean = root @ (root.T @ moment)
    root *= max((total - moment @ mean) / (trials - 1), TINY) ** 0.5
    return Effects(mean / scale, root / scale)
