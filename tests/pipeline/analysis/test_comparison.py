"""Comparisons follow from the results of each contender on every image."""

import json
from pathlib import Path

import numpy as np
import pytest

from igq import Unit
from pipeline.analysis.comparison import compared, over_seeds
from pipeline.errors import StudyError
from pipeline.evaluation.validation import Measured, Validation, load_validation, save_validation

IMAGES = 200


def measured(name: str, kls: np.ndarray, correct: tuple[bool, ...] | None = None) -> Measured:
    return Measured(name, 3, {Unit.BOPS: 100}, 0.05, 640, 0.2, tuple(kls.tolist()), correct)


def validation(seed: int, better: float, correct: bool = False) -> Validation:
    """The best has `better` less KL than `ilp` on average; images differ by much more."""
    generator = np.random.default_rng(seed)
    hard = generator.exponential(1.0, IMAGES)
    noise = generator.normal(0.0, 0.05, IMAGES)
    answers = tuple((generator.random(IMAGES) < 0.7).tolist()) if correct else None
    return Validation(
        (
            measured("best", hard, answers),
            measured("ilp", hard + better + noise, answers),
        ),
        0.9 if correct else None,
    )


class TestCompared:
    @pytest.mark.parametrize("better", [0.05, -0.05])
    def test_pairing_finds_what_images_hide(self, better: float) -> None:
        _, ilp = compared(validation(0, better))
        assert ilp.difference is not None
        assert not ilp.difference.holds_zero
        assert ilp.difference.mean == pytest.approx(-better, abs=0.02)
        assert ilp.kl.high - ilp.kl.low > 0.2  # alone, either could be the other

    def test_it_can_say_no_difference(self) -> None:
        shown = [compared(validation(seed, 0.0))[1].difference for seed in range(40)]
        assert sum(d is not None and d.holds_zero for d in shown) >= 34

    def test_the_best_is_not_compared_with_itself(self) -> None:
        best, _ = compared(validation(0, 0.1))
        assert best.difference is best.top1_difference is None

    def test_top_1_is_paired_too(self) -> None:
        best, ilp = compared(validation(0, 0.1, correct=True))
        assert best.top1 == ilp.top1
        assert ilp.top1_difference is not None
        assert (ilp.top1_difference.low, ilp.top1_difference.high) == (0, 0)

    def test_rows_are_plain_data_with_means_by_name(self) -> None:
        row = json.loads(json.dumps(compared(validation(0, 0.1))[1].json()))
        assert row["kl_interval"][0] < row["kl"] < row["kl_interval"][1]
        assert row["top1"] is None


class TestOverSeeds:
    def test_the_interval_is_over_the_seeds_differences(self) -> None:
        studies = [validation(seed, 0.1 + 0.02 * seed) for seed in range(5)]
        _, ilp = over_seeds(studies)
        each = [compared(study)[1].difference for study in studies]
        means = [d.mean for d in each if d is not None]
        assert ilp.difference is not None
        assert ilp.difference.mean == pytest.approx(np.mean(means))
        reach = 2.776 * np.std(means, ddof=1) / np.sqrt(5)
        assert ilp.difference.high - ilp.difference.mean == pytest.approx(reach, rel=1e-3)
        assert ilp.number is None

    def test_seeds_that_disagree_are_no_difference(self) -> None:
        _, ilp = over_seeds([validation(0, 0.1), validation(1, -0.1), validation(2, 0.05)])
        assert ilp.difference is not None
        assert ilp.difference.holds_zero

    def test_a_contender_that_a_study_lacks_is_left_out(self) -> None:
        whole = validation(0, 0.1)
        assert len(over_seeds([whole, Validation(whole.measured[:1], None)])) == 1


class TestFiles:
    @pytest.mark.parametrize("labels", [True, False])
    def test_it_comes_back_as_it_was(self, tmp_path: Path, labels: bool) -> None:
        noted = validation(0, 0.1, labels)
        save_validation(tmp_path / "validation.json", noted)
        assert load_validation(tmp_path / "validation.json") == noted

    @pytest.mark.parametrize("content", ["[]", "{}", '{"measured": [{}]}'])
    def test_damage_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "validation.json"
        path.write_text(content)
        with pytest.raises(StudyError, match=r"must (hold a study's|be as it was)"):
            load_validation(path)

    def test_a_study_that_has_not_ended_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"must hold validation.json"):
            load_validation(tmp_path / "validation.json")
