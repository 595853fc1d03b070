"""Samplers on a synthetic study whose best allocation is known."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from igq import (
    Allocation,
    Kind,
    Layer,
    Limit,
    Limits,
    Observation,
    Options,
    Scheme,
    Setting,
    Unit,
    allocate,
)
from igq.costs import bops_table, size_table
from igq.costs.ties import Ties
from pipeline.proposals import Proposals
from pipeline.proposals.encoding import Encoding
from pipeline.searching.driver import Driver, Plan
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin, State, Trial
from pipeline.tracking import InMemoryTracker, StudyRun
from tests.makers import bops_of, counts_of, limits_of, settings_of, table_of

LAYERS = tuple(Layer(f"fc{i}", Kind.LINEAR, tokens=4, channels=8, outputs=6) for i in range(16))
GROUPS = (2, 4, 6, 8, 12, 16)
LIMITS = bops_of(LAYERS, GROUPS).limit(uniform=6)
SCHEDULE = BudgetSchedule(LIMITS.budget, LIMITS.budget)
EFFECTS = np.random.default_rng(3).exponential(size=len(LAYERS))
IMAGES = 16


def truth(allocation: Allocation) -> float:
    """Return the KL of an allocation without noise."""
    effects = dict(zip(allocation, EFFECTS, strict=True))
    counts = counts_of(allocation)
    return float(np.exp(sum(effects[name] / (g or 1) for name, g in counts.items()) - 2))


def noisy(allocation: Allocation, number: int) -> tuple[float, ...]:
    """Return the KL with noise."""
    noise = np.random.default_rng([5, number]).normal(size=IMAGES)
    return tuple((truth(allocation) * np.exp(0.3 * noise)).tolist())


def play(proposals: Proposals, trials: int) -> list[Allocation]:
    asked = []
    for _ in range(trials):
        proposal = proposals.ask()
        kls = noisy(proposal.allocation, proposal.number)
        proposals.tell(Trial(proposal, State.COMPLETE, Observation(kls), chunks=(len(kls),)))
        asked.append(proposal.allocation)
    return asked


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Proposals]:
    uniform = Allocation.of({layer.name: 6 for layer in LAYERS})

    def make(sampler: Sampler, seed: int = 0, name: str = "journal") -> Proposals:
        journal = tmp_path / f"{name}_{sampler.value}_{seed}.log"
        baselines = [(Origin.UNIFORM, uniform)]
        return Proposals(journal, "study", LIMITS, SCHEDULE, baselines, sampler, seed)

    return make


def optimum() -> float:
    """The least KL that an allocation within the budget has."""
    loss = {
        layer.name: {g: float(effect / g) for g in GROUPS}
        for layer, effect in zip(LAYERS, EFFECTS, strict=True)
    }
    return truth(allocate(settings_of(loss), LIMITS))


@pytest.mark.slow
def test_the_surrogate_comes_closer_to_the_optimum_than_random_and_tpe(
    study: Callable[..., Proposals],
) -> None:
    def excess(sampler: Sampler) -> float:
        """Of the last ten proposals, over the optimum; the mean of two studies."""
        last = [a for seed in range(2) for a in play(study(sampler, seed), 70)[-10:]]
        return fmean(truth(a) for a in last) / optimum() - 1

    surrogate, random, tpe = map(excess, (Sampler.SURROGATE, Sampler.RANDOM, Sampler.TPE))
    assert surrogate < 0.5 * tpe
    assert surrogate < 0.25 * random


def test_where_logit_mses_were_measured_it_learns_from_them(
    study: Callable[..., Proposals],
) -> None:
    proposals, asked = study(Sampler.SURROGATE), []
    for number in range(50):
        proposal = proposals.ask()
        shown = noisy(proposal.allocation, number)
        seen = Observation((1.0,) * IMAGES, shown)
        proposals.tell(Trial(proposal, State.COMPLETE, seen, chunks=(IMAGES,)))
        asked.append(truth(proposal.allocation))
    assert fmean(asked[-10:]) / optimum() - 1 < 0.5 * (fmean(asked[1:11]) / optimum() - 1)
    assert proposals.ended()[-1].observation.logit_mses == shown


@pytest.mark.parametrize("sampler", [s for s in Sampler if s is not Sampler.PLAIN])
def test_every_proposal_keeps_the_budget_and_is_new(
    study: Callable[..., Proposals], sampler: Sampler
) -> None:
    asked = play(study(sampler), 40)
    assert all(map(LIMITS.fits, asked))
    assert len(set(asked)) == 40


OPTIONS = Options((3, 4, 8), (3, 4, 8), (2, 4))


@pytest.fixture
def sized() -> Limits:
    """Bits and groups to choose, with the BOPs and nine tenths of the size of 4 bits everywhere."""
    table = bops_table(LAYERS, Scheme.PAPER, OPTIONS, (4, 4))
    sizes = size_table(LAYERS, OPTIONS, parameters=16 * 8 * 6)
    at_4 = dict.fromkeys(table.layers, Setting(4, 4, 4))
    codes = sizes.of(at_4) - sizes.fixed
    return Limits((Limit(table, table.of(at_4)), Limit(sizes, sizes.fixed + codes * 9 // 10)))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", Sampler)
def test_every_trial_keeps_the_size_too(tmp_path: Path, sized: Limits, sampler: Sampler) -> None:
    schedule = BudgetSchedule(sized.budget, sized.budget)
    proposals = Proposals(tmp_path / "journal.log", "study", sized, schedule, [], sampler)
    tracker = InMemoryTracker()
    tracker.start(StudyRun("study", "key", {}, sized.budget))
    driver = Driver(proposals, tracker, Plan(trials=30, images=2, budget=sized.budget))
    while (proposal := driver.next()) is not None:
        assert sized.fits(proposal.allocation)
        assert proposal.costs == sized.costs(proposal.allocation)
        assert list(proposal.costs) == [Unit.BOPS, Unit.BYTES]
        kl = sum(4.0 ** -(s.weight_bits or 0) for s in proposal.allocation.values())
        driver.report(proposal.number, 0, Observation((kl, kl + 1)))
        driver.finish(proposal.number, 1.0)
    never_sent = driver.snapshot.count(State.OVER_BUDGET)
    assert (never_sent > 0) == (sampler is Sampler.PLAIN)
    assert proposals.ended() == driver.snapshot.ended


def test_where_every_allocation_was_tried_it_still_answers(tmp_path: Path) -> None:
    limits, schedule = limits_of(table_of({"fc": {1: 1, 2: 2}}), 2), BudgetSchedule(2, 2)
    proposals = Proposals(tmp_path / "journal", "study", limits, schedule, [], Sampler.SURROGATE)
    for _ in range(12):
        proposal = proposals.ask()
        proposals.tell(Trial(proposal, State.COMPLETE, Observation((1.0,)), chunks=(1,)))


@pytest.mark.parametrize("sampler", [Sampler.SURROGATE, Sampler.LOCAL])
@pytest.mark.slow
def test_a_reopened_study_goes_on_as_if_it_had_never_been_closed(
    study: Callable[..., Proposals], sampler: Sampler
) -> None:
    whole = play(study(sampler, name="whole"), 24)
    parts = play(study(sampler), 12) + play(study(sampler), 12)
    assert parts == whole


def test_local_moves_stay_near_the_best(study: Callable[..., Proposals]) -> None:
    asked = play(study(Sampler.LOCAL), 30)
    seen = {a: fmean(noisy(a, number)) for number, a in enumerate(asked)}
    for number in range(1, 30):
        best = min(asked[:number], key=seen.__getitem__)
        changed = sum(asked[number][name] != best[name] for name in best)
        assert 0 < changed < len(best)


@pytest.mark.parametrize("sampler", [Sampler.SURROGATE, Sampler.LOCAL])
def test_proposals_leave_the_first_layers_of_the_best_as_they_are(
    study: Callable[..., Proposals], sampler: Sampler
) -> None:
    asked = play(study(sampler), 60)
    seen = {a: fmean(noisy(a, number)) for number, a in enumerate(asked)}
    agree = []
    for number in range(10, 60):
        best = min(asked[:number], key=seen.__getitem__)
        changed = [asked[number][name] != best[name] for name in best]
        agree.append(changed.index(True) / len(changed))
    assert min(agree) < 0.2  # any layer may be the first that changes
    assert 0.2 < fmean(agree) < 0.8


def test_where_ties_span_blocks_entries_have_no_order() -> None:
    names = [f"blocks.{i}.mlp.{place}" for i in range(2) for place in ("fc1", "fc2")]

    def in_order(ties: dict[str, list[str]]) -> bool:
        table = table_of({name: {1: 1, 2: 2} for name in ties})
        members = Ties({name: tuple(tied) for name, tied in ties.items()})
        return Encoding(Limits((Limit(table, 9),), members)).in_order

    assert in_order({name: [name] for name in names})
    assert in_order({"blocks.0": names[:2], "blocks.1": names[2:]})
    assert not in_order({"mlp.fc1": names[::2], "mlp.fc2": names[1::2]})
