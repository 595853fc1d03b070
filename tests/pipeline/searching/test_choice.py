"""The choice of least expected KL."""

from statistics import fmean

import numpy as np
import pytest

from pipeline.intervals import interval
from pipeline.searching.choice import Estimate, choose, in_doubt

NOISE = 0.4
"""Standard deviation of the square root of an image's KL, as in the demo relative to its mean."""


def drawn(
    thetas: list[float], images: int, seed: int, seen: dict[int, int] | None = None
) -> dict[int, tuple[float, ...]]:
    """Draw KLs whose square roots have these means, an effect of the image, and noise."""
    generator = np.random.default_rng(seed)
    image = 2 + generator.normal(0, 0.5, images)
    roots = [t + image + generator.normal(0, NOISE, images) for t in thetas]
    counts = seen or {}
    return {n: tuple((x**2).tolist()[: counts.get(n, images)]) for n, x in enumerate(roots)}


def apart(sums: dict[int, float]) -> dict[int, dict[str, float]]:
    """Return the sensitivities of finalists that have no setting in common."""
    return {n: {f"setting {n}": nats} for n, nats in sums.items()}


class TestEstimate:
    def test_with_equal_images_means_keep_their_order_and_shrink(self) -> None:
        kls = drawn([0.0, 0.1, 0.2, 0.3, 0.4], 50, 0)
        found = Estimate.of(kls).mean
        means = np.sqrt(list(kls.values())).mean(axis=1)
        deviations = means - means.mean()
        shares = np.array(list(found.values())) / deviations
        assert shares == pytest.approx(shares[0])
        assert 0 < shares[0] < 1

    def test_the_more_images_the_less_they_shrink(self) -> None:
        thetas = [0.0, 0.1, 0.2, 0.3, 0.4]
        errors = [np.trace(Estimate.of(drawn(thetas, n, 1)).covariance) for n in (20, 100, 2000)]
        assert errors == sorted(errors, reverse=True)
        found = Estimate.of(drawn(thetas, 2000, 1)).mean
        assert list(found.values()) == pytest.approx([-0.2, -0.1, 0, 0.1, 0.2], abs=0.03)

    def test_hard_images_count_against_none(self) -> None:
        """Those in the race for longer see hard images that others never saw."""
        easy, hard = [0.25, 0.30, 0.35, 0.28], [9.0, 9.5, 9.2, 9.8]
        kls = {0: tuple(easy + hard), 1: tuple(x + 0.2 for x in easy), 2: tuple(easy + hard)}
        found = Estimate.of(kls).mean
        assert found[0] == pytest.approx(found[2])
        assert found[0] < found[1]

    def test_its_error_is_what_it_says(self) -> None:
        """Over draws from the model itself, errors have the covariance that is told."""
        generator, errors, told = np.random.default_rng(0), 0.0, 0.0
        for seed in range(60):
            thetas = generator.normal(0, 0.1, 8)
            found = Estimate.of(drawn(thetas.tolist(), 40, seed))
            error = np.array(list(found.mean.values())) - (thetas - thetas.mean())
            errors, told = errors + (error**2).sum(), told + np.trace(found.covariance)
        assert errors / told == pytest.approx(1, abs=0.15)

    def test_finalists_of_the_same_settings_where_it_matters_hardly_differ(self) -> None:
        """Five are far apart; two of them differ in a layer of small sensitivity alone."""
        known = {n: {f"large {n}": 1.0, f"small {n}": 0.02} for n in range(5)}
        known[1] = {"large 0": 1.0, "small 1": 0.02}
        kls = drawn([0.0, 0.1, 0.3, -0.3, 0.5], 60, 7)
        alike, alone = Estimate.of(kls, known), Estimate.of(kls, apart(dict.fromkeys(kls, 1.02)))
        assert abs(alike.mean[1] - alike.mean[0]) < 0.3 * abs(alone.mean[1] - alone.mean[0])
        assert alike.mean[4] - alike.mean[3] == pytest.approx(0.8, abs=0.15)
        assert 0.2 < alike.chance_below(0, 1) < 0.8

    def test_errors_of_sensitivities_have_the_covariance_that_is_told(self) -> None:
        """Over draws of allocations and of their layers' errors, as the model has it."""
        generator, errors, told = np.random.default_rng(0), 0.0, 0.0
        for seed in range(60):
            settings = generator.integers(0, 2, (8, 12))
            nats = generator.uniform(0.5, 1.5, 12)
            wrong = generator.normal(0, 0.3, (2, 12))
            known = {
                n: {(layer, int(s)): float(nats[layer]) for layer, s in enumerate(row)}
                for n, row in enumerate(settings)
            }
            shares = nats / nats.sum()
            thetas = np.array([(shares * wrong[row, range(12)]).sum() for row in settings])
            found = Estimate.of(drawn(thetas.tolist(), 40, seed), known)
            error = np.array(list(found.mean.values())) - (thetas - thetas.mean())
            errors, told = errors + (error**2).sum(), told + np.trace(found.covariance)
        assert errors / told == pytest.approx(1, abs=0.15)

    def test_one_image_tells_nothing(self) -> None:
        found = Estimate.of({0: (0.9,), 1: (0.1,)})
        assert found.mean == {0: 0.0, 1: 0.0}


class TestChoose:
    def test_where_they_differ_the_images_decide(self) -> None:
        kls = drawn([0.0, 0.6, 0.5, 0.7, 0.6], 100, 2)
        against = {0: 0.9, 1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1}
        assert choose(kls, apart(against)) == 0

    @pytest.mark.slow
    def test_where_they_are_alike_the_prediction_decides(self) -> None:
        """Of finalists that differ by little, as much as is predicted, few images tell little."""
        thetas = [0.00, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.14]
        predicted = {n: float(np.exp(t)) for n, t in enumerate(thetas)}
        losses: dict[str, list[float]] = {"known": [], "unknown": []}
        for seed in range(40):
            kls = drawn(thetas, 30, seed)
            losses["known"].append(thetas[choose(kls, apart(predicted))])
            losses["unknown"].append(thetas[choose(kls)])
        assert fmean(losses["known"]) < 0.7 * fmean(losses["unknown"])

    @pytest.mark.slow
    def test_a_prediction_without_sense_hardly_harms(self) -> None:
        generator = np.random.default_rng(0)
        losses: dict[str, list[float]] = {"known": [], "unknown": []}
        for seed in range(40):
            thetas = generator.normal(0, 0.2, 12).tolist()
            predicted = {n: float(x) for n, x in enumerate(np.exp(generator.normal(0, 1, 12)))}
            kls = drawn(thetas, 60, seed)
            losses["known"].append(thetas[choose(kls, apart(predicted))] - min(thetas))
            losses["unknown"].append(thetas[choose(kls)] - min(thetas))
        assert fmean(losses["known"]) < fmean(losses["unknown"]) + 0.02

    def test_equals_are_told_apart_by_prediction_then_number(self) -> None:
        kls = {4: (0.5, 0.6), 2: (0.5, 0.6), 3: (0.5, 0.6)}
        assert choose(kls) == 2
        assert choose(kls, apart({4: 0.1, 2: 0.2, 3: 0.3})) == 4

    def test_one_that_stopped_is_not_taken(self) -> None:
        assert choose({0: (0.1,), 1: (0.5, 0.6), 2: (0.7, 0.9)}) == 1

    def test_one_that_stopped_is_taken_if_it_is_clearly_better_than_all(self) -> None:
        kls = {0: (0.1, 0.1, 0.12), 1: (0.5, 0.6, 0.55, 0.5), 2: (0.7, 0.9, 0.8, 0.8)}
        assert choose(kls) == 0

    @pytest.mark.parametrize("seed", range(60))
    def test_its_own_images_never_contradict_it(self, seed: int) -> None:
        """Whatever is predicted, the winner is clearly worse than none on the images they share."""
        generator = np.random.default_rng(seed)
        count = int(generator.integers(2, 9))
        thetas = generator.normal(0, generator.choice([0.0, 0.1, 0.4]), count).tolist()
        seen = {n: int(generator.choice([12, 24])) for n in range(1, count)}
        kls = drawn(thetas, 24, seed, seen)
        predicted = dict(enumerate(np.exp(5 * generator.normal(size=count)).tolist()))
        winner = kls[choose(kls, apart(predicted))]
        for other in kls.values():
            less = [a - b for a, b in zip(other, winner, strict=False)]
            assert interval(less).high >= 0

    def test_the_order_of_trials_changes_nothing(self) -> None:
        kls = drawn([0.0, 0.05, 0.1, 0.1], 30, 5)
        predicted = {0: 0.3, 1: 0.2, 2: 0.1, 3: 0.4}
        turned = dict(reversed(kls.items()))
        assert choose(kls, apart(predicted)) == choose(turned, apart(predicted))
        expected = Estimate.of(kls, apart(predicted)).mean
        assert Estimate.of(turned, apart(predicted)).mean == pytest.approx(expected)


class TestInDoubt:
    def test_those_surely_worse_are_out(self) -> None:
        kls = drawn([0.0, 0.05, 2.0, 1.5], 40, 3)
        assert in_doubt(list(kls), kls) == [0, 1]

    def test_the_likely_best_stays_alone(self) -> None:
        kls = drawn([1.0, 0.0, 2.0], 100, 4)
        assert in_doubt(list(kls), kls) == [1]

    def test_after_one_image_all_are(self) -> None:
        kls = {0: (0.9,), 1: (0.1,), 2: (0.2,)}
        assert in_doubt([0, 1, 2], kls) == [0, 1, 2]
