"""What the surrogate makes of noisy trials."""

import numpy as np
import pytest

from pipeline.surrogate import Evidence, learn

LAYERS, IMAGES = 6, 16
WORTHS = np.array([0.1, 0.8, 0.3, 0.0, 0.5, 1.2])


def simulate(trials: int, noise: float, seed: int = 0) -> tuple[np.ndarray, Evidence]:
    """Features, and what such trials would show were the model true."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 3, (trials, LAYERS))
    features = 1 / np.array([2, 4, 8])[places]
    base = generator.normal(size=IMAGES)
    logs = base + (features @ WORTHS)[:, None] + noise * generator.normal(size=(trials, IMAGES))
    return features, Evidence(places, logs)


class TestEvidence:
    def test_a_trial_is_compared_with_others_on_the_images_that_it_saw(self) -> None:
        logs = [np.array(row) for row in ([1.0, 8.0], [2.0, 9.0], [1.0])]
        effects, images = Evidence.of([[0], [1], [2]], logs).effects
        assert images.tolist() == [2, 2, 1]
        assert effects[1] - effects[0] == pytest.approx(1.0)
        assert effects[2] == pytest.approx(1.0 - 4 / 3)


class TestLearning:
    def test_without_noise_it_finds_the_worths(self) -> None:
        features, evidence = simulate(trials=60, noise=1e-3)
        worths = learn(features, *evidence.effects)
        assert worths.mean == pytest.approx(WORTHS, abs=0.02)

    def test_it_knows_how_wrong_it_may_be(self) -> None:
        """Of many studies the truth lies within two deviations in about 95 %."""
        inside = []
        for seed in range(30):
            features, evidence = simulate(trials=40, noise=0.5, seed=seed)
            worths = learn(features, *evidence.effects)
            deviation = np.sqrt((worths.root**2).sum(axis=1))
            inside.append(np.abs(worths.mean - WORTHS) < 2 * deviation)
        assert 0.88 < np.mean(inside) <= 1

    def test_more_trials_teach_more(self) -> None:
        errors = []
        for trials in (20, 200):
            features, evidence = simulate(trials, noise=0.5)
            errors.append(np.abs(learn(features, *evidence.effects).mean - WORTHS).mean())
        assert errors[1] < errors[0] / 2

    def test_stopped_trials_count_for_as_much_as_they_saw(self) -> None:
        features, evidence = simulate(trials=60, noise=0.3)
        stopped = evidence.logs.copy()
        stopped[::2, 4:] = np.nan
        partly = learn(features, *Evidence(evidence.places, stopped).effects)
        assert partly.mean == pytest.approx(WORTHS, abs=0.35)

    def test_draws_scatter_as_the_covariance_says(self) -> None:
        features, evidence = simulate(trials=40, noise=0.5)
        worths = learn(features, *evidence.effects)
        generator = np.random.default_rng(0)
        draws = np.stack([worths.draw(generator) for _ in range(4000)])
        expected = worths.root @ worths.root.T
        assert np.cov(draws.T) == pytest.approx(expected, abs=0.1 * np.abs(expected).max())
