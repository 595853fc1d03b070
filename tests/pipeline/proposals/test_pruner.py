"""The pruner decides as Optuna's own, and asks SciPy once for each order of ranks."""

import numpy as np
import optuna
import pytest
from optuna.pruners import NopPruner, WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.proposals.pruner import P_THRESHOLD, Leader, RankedPruner, p_worse, pruner_of
from pipeline.study.budgets import BudgetSchedule

ALIKE = 7


def trial(values: list[float], state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    value = float(np.mean(values)) if state is TrialState.COMPLETE else None
    return create_trial(state=state, value=value, intermediate_values=dict(enumerate(values)))


def study_with(best: list[float]) -> optuna.Study:
    study = optuna.create_study()
    study.add_trial(trial(best, TrialState.COMPLETE))
    return study


def chunks(generator: np.random.Generator, count: int, coarse: bool) -> list[float]:
    """Return means of chunks; coarse ones have ties, and differences of zero."""
    values = generator.integers(1, 4, count) if coarse else generator.lognormal(size=count)
    return [float(value) for value in values]


@pytest.mark.slow
@pytest.mark.parametrize("coarse", [False, True], ids=["no ties", "ties and zeros"])
def test_it_stops_what_optuna_s_pruner_stops(coarse: bool) -> None:
    generator = np.random.default_rng(0)
    ours, theirs = RankedPruner(p_threshold=P_THRESHOLD), WilcoxonPruner(p_threshold=P_THRESHOLD)
    answers = []
    for _ in range(30):
        study = study_with(chunks(generator, 8, coarse))
        values = [value + 0.5 for value in chunks(generator, 8, coarse)]
        for seen in range(9):
            now = trial(values[:seen])
            answers.append(ours.prune(study, now))
            assert answers[-1] == theirs.prune(study, now)
    assert 10 < sum(answers) < 260


def test_a_chunk_that_the_best_has_not_seen_and_no_best_at_all() -> None:
    ours = RankedPruner(p_threshold=P_THRESHOLD)
    with pytest.warns(UserWarning, match="does not exist in the best trial"):
        assert not ours.prune(study_with([1.0, 2.0]), trial([2.0, 3.0, 4.0]))
    assert not ours.prune(optuna.create_study(), trial([2.0, 3.0, 4.0, 5.0]))


def test_trials_of_the_same_ranks_are_tested_once() -> None:
    p_worse.cache_clear()
    ours, best = RankedPruner(p_threshold=P_THRESHOLD), study_with([1.0, 1.0, 1.0, 1.0])
    for shift in range(1, 1 + ALIKE):
        assert ours.prune(best, trial([1.0 + shift * step for step in (1, 3, 2, 4)]))
    assert p_worse.cache_info().misses == 1


def test_several_budgets_have_no_pruner() -> None:
    assert isinstance(pruner_of(BudgetSchedule(1, 2)), NopPruner)
    assert isinstance(pruner_of(BudgetSchedule(2, 2)), RankedPruner)


def test_the_leader_is_the_earlier_of_equals_that_keep_the_limits() -> None:
    study = study_with([2.0, 2.0])
    over = trial([1.0], TrialState.COMPLETE)
    over.set_constraint("bops", 1.0)
    for one in (trial([2.0], TrialState.COMPLETE), over):
        study.add_trial(one)
    leader = Leader(study)
    assert leader.best_trial.number == study.best_trial.number == 0
