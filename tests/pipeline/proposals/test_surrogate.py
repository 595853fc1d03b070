"""The surrogate on noisy trials."""

import numpy as np
import pytest

from pipeline.proposals.surrogate import Evidence, learn

LAYERS, IMAGES = 6, 16
EFFECTS = np.array([0.1, 0.8, 0.3, 0.0, 0.5, 1.2])


def simulate(trials: int, noise: float, seed: int = 0) -> tuple[np.ndarray, Evidence]:
    """Features, and what such trials would show were the model true."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 3, (trials, LAYERS))
    features = 1 / np.array([2, 4, 8])[places]
    base = generator.normal(size=IMAGES)
    logs = base + (features @ EFFECTS)[:, None] + noise * generator.normal(size=(trials, IMAGES))
    return features, Evidence(places, logs)


class TestEvidence:
    def test_a_trial_is_compared_with_others_on_the_images_that_it_saw(self) -> None:
        logs = np.array([[1.0, 8.0], [2.0, 9.0], [1.0, np.nan]])
        deviations, images = Evidence(np.array([[0], [1], [2]]), logs).deviations
        assert images.tolist() == [2, 2, 1]
        assert deviations[1] - deviations[0] == pytest.approx(1.0)
        assert deviations[2] == pytest.approx(1.0 - 4 / 3)


class TestLearning:
    def test_without_noise_it_finds_the_effects(self) -> None:
        features, evidence = simulate(trials=60, noise=1e-3)
        effects = learn(features, *evidence.deviations)
        assert effects.mean == pytest.approx(EFFECTS, abs=0.02)

    def test_it_knows_how_wrong_it_may_be(self) -> None:
        """Of many studies the truth lies within two deviations in about 95 %."""
        inside = []
        for seed in range(30):
            features, evidence = simulate(trials=40, noise=0.5, seed=seed)
            effects = learn(features, *evidence.deviations)
            deviation = np.sqrt((effects.root**2).sum(axis=1))
            inside.append(np.abs(effects.mean - EFFECTS) < 2 * deviation)
        assert 0.88 < np.mean(inside) <= 1

    def test_more_trials_teach_more(self) -> None:
        errors = []
        for trials in (20, 200):
            features, evidence = simulate(trials, noise=0.5)
            errors.append(np.abs(learn(features, *evidence.deviations).mean - EFFECTS).mean())
        assert errors[1] < errors[0] / 2

    def test_stopped_trials_count_for_as_much_as_they_saw(self) -> None:
        features, evidence = simulate(trials=60, noise=0.3)
        stopped = evidence.logs.copy()
        stopped[::2, 4:] = np.nan
        partly = learn(features, *Evidence(evidence.places, stopped).deviations)
        assert partly.mean == pytest.approx(EFFECTS, abs=0.35)

    def test_draws_scatter_as_the_covariance_says(self) -> None:
        features, evidence = simulate(trials=40, noise=0.5)
        effects = learn(features, *evidence.deviations)
        generator = np.random.default_rng(0)
        draws = np.stack([effects.draw(generator) for _ in range(4000)])
        expected = effects.root @ effects.root.T
        assert np.cov(draws.T) == pytest.approx(expected, abs=0.1 * np.abs(expected).max())
