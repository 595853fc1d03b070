"""What groups are worth, learned from many noisy trials together.

One trial says little: which way a value rounds depends on everything before it, so that a few
images scatter more than good allocations differ. All trials together say more. Near good
allocations the logarithm of an image's shift is taken to be additive over layers,

    log shift(image, allocation) = base(image) + sum_l worth_l / num_groups_l + noise,

so that ridge regression pools all trials, stopped ones too. Unlike the paper's harm table (Eq. 9)
it measures a layer while all others are quantized. The shift is the mean squared change of the
logits; the KL, which few classes decide, scatters more and takes its place only where shifts were
not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pipeline.budget import Generator

Numbers = Float[np.ndarray, "..."]

SMALLEST = 0.01
"""Added before the logarithm: an image that is not shifted at all must not decide alone."""
TINY = 1e-12
"""What divides safely where all trials are alike."""
SHRINKAGES = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)
"""How strongly a layer's own worth is held to the shared one, in trials; the data choose."""
SHARED = 1.0
"""Variance of the worth that all layers share, over a trial's noise: it is left to the data."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What trials have shown: a row for each of them."""

    places: Int[np.ndarray, "trials layers"]
    logs: Float[np.ndarray, "trials images"]
    """Logarithm of what each image shows; NaN where the trial was stopped before it saw it."""

    @classmethod
    def of(cls, places: Sequence[Sequence[int]], logs: Sequence[Numbers]) -> "Evidence":
        """From what the images show that each trial saw, the first ones; of at least one trial."""
        rows = np.full((len(logs), max(map(len, logs), default=0)), np.nan)
        for row, seen in zip(rows, logs, strict=True):
            row[: len(seen)] = seen
        return cls(np.array(places, dtype=int), rows)

    @property
    def effects(self) -> tuple[Float[np.ndarray, " trials"], Float[np.ndarray, " trials"]]:
        """How far a trial's mean is from what its images have on average; how many they are."""
        seen = ~np.isnan(self.logs)
        known = np.where(seen, self.logs, 0.0)
        base = known.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        counts = seen.sum(axis=1).astype(float)
        return (known.sum(axis=1) - seen @ base) / counts, counts


@dataclass(frozen=True, eq=False)
class Worths:
    """A normal distribution of the layers' worths."""

    mean: Float[np.ndarray, " layers"]
    root: Float[np.ndarray, "layers layers"]
    """Times its transpose: the covariance."""

    def draw(self, generator: Generator) -> Float[np.ndarray, " layers"]:
        """Worths as they may be, for all that is known."""
        drawn: Numbers = self.mean + self.root @ generator.standard_normal(len(self.mean))
        return drawn


def learn(
    features: Float[np.ndarray, "trials layers"],
    effects: Float[np.ndarray, " trials"],
    images: Float[np.ndarray, " trials"],
) -> Worths:
    """What is known of the worths: Bayesian ridge regression, trials weighted by images seen.

    A layer's worth is one that all layers share and its own departure from it. How far departures
    go is chosen, of a few, as what makes the effects likeliest (empirical Bayes).
    """
    trials, layers = features.shape
    weights = images / images.mean()
    x = features - np.average(features, axis=0, weights=weights)
    y = effects - np.average(effects, weights=weights)
    scale = max(float(np.sqrt((x**2).mean())), TINY)
    x /= scale
    gram, moment, total = x.T @ (weights[:, None] * x), x.T @ (weights * y), weights @ y**2
    fits = []
    for shrinkage in SHRINKAGES:
        # the prior's covariance is 1 / shrinkage on the diagonal, and SHARED everywhere
        spread = 1 + shrinkage * SHARED * layers
        prior = shrinkage * np.eye(layers) - shrinkage**2 * SHARED / spread
        root = np.linalg.inv(np.linalg.cholesky(gram + prior)).T
        mean = root @ (root.T @ moment)
        noise = max((total - moment @ mean) / (trials - 1), TINY)
        unlikely = np.log(spread) - layers * np.log(shrinkage) + (trials - 1) * np.log(noise)
        fits.append((unlikely - 2 * np.log(np.diag(root)).sum(), mean, root * noise**0.5))
    _, mean, root = min(fits, key=lambda fit: fit[0])
    return Worths(mean / scale, root / scale)
