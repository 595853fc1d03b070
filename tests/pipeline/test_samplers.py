"""Samplers on a synthetic study whose best allocation is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from igq import Allocation, BopsTable, allocate
from igq import bops as bops_table
from igq.layers import Layer, Slices
from igq.mixed import Options, mixed_bops, mixed_sizes
from igq.settings import Setting
from pipeline.config import Sampler
from pipeline.driver import Driver
from pipeline.memory import Space
from pipeline.proposals import Proposals
from pipeline.study import Origin, State, Trial
from pipeline.tracking import InMemoryTracker, StudyRun

LAYERS = tuple(
    Layer(f"fc{i}", Slices.CHANNELS, tokens=4, channels=8, outputs=6, weighted=True)
    for i in range(16)
)
GROUPS = (2, 4, 6, 8, 12, 16)
BOPS = bops_table(LAYERS, GROUPS, weight_bits=4, activation_bits=4)
BUDGET = BOPS.of({layer.name: 6 for layer in LAYERS})
WORTHS = np.random.default_rng(3).exponential(size=len(LAYERS))
IMAGES = 16


def truth(allocation: Allocation) -> float:
    """What the KL of an allocation would be without noise."""
    worths = dict(zip(allocation, WORTHS, strict=True))
    return float(np.exp(sum(worths[name] / groups for name, groups in allocation.items()) - 2))


def noisy(allocation: Allocation, number: int) -> tuple[float, ...]:
    """What is seen of it."""
    noise = np.random.default_rng([5, number]).normal(size=IMAGES)
    return tuple((truth(allocation) * np.exp(0.3 * noise)).tolist())


def play(proposals: Proposals, trials: int) -> list[Allocation]:
    asked = []
    for _ in range(trials):
        proposal = proposals.ask()
        kls = noisy(proposal.allocation, proposal.number)
        proposals.tell(Trial(proposal, State.COMPLETE, kls, chunks=(len(kls),)))
        asked.append(proposal.allocation)
    return asked


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Proposals]:
    uniform = Allocation.of({layer.name: 6 for layer in LAYERS})

    def make(sampler: Sampler, seed: int = 0, name: str = "journal") -> Proposals:
        journal = tmp_path / f"{name}_{sampler.value}_{seed}.log"
        return Proposals(journal, "study", BOPS, BUDGET, [(Origin.UNIFORM, uniform)], sampler, seed)

    return make


def optimum() -> float:
    """The least KL that an allocation within the budget has."""
    harm = {
        layer.name: {g: float(worth / g) for g in GROUPS}
        for layer, worth in zip(LAYERS, WORTHS, strict=True)
    }
    return truth(allocate(harm, BOPS, BUDGET))


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


def test_where_there_are_shifts_it_learns_from_them(study: Callable[..., Proposals]) -> None:
    proposals, asked = study(Sampler.SURROGATE), []
    for number in range(50):
        proposal = proposals.ask()
        shown = noisy(proposal.allocation, number)
        ended = Trial(proposal, State.COMPLETE, (1.0,) * IMAGES, chunks=(IMAGES,), shifts=shown)
        proposals.tell(ended)
        asked.append(truth(proposal.allocation))
    assert fmean(asked[-10:]) / optimum() - 1 < 0.5 * (fmean(asked[1:11]) / optimum() - 1)
    assert proposals.ended()[-1].shifts == shown


@pytest.mark.parametrize("sampler", [s for s in Sampler if s is not Sampler.PLAIN])
def test_every_proposal_keeps_the_budget_and_is_new(
    study: Callable[..., Proposals], sampler: Sampler
) -> None:
    asked = play(study(sampler), 40)
    assert all(BOPS.of(allocation) <= BUDGET for allocation in asked)
    assert len(set(asked)) == 40


OPTIONS = Options((3, 4, 8), (3, 4, 8), (2, 4))


@pytest.fixture
def sized() -> tuple[BopsTable, int]:
    """Bits and groups to choose, with the BOPs and nine tenths of the size of 4 bits everywhere."""
    table = mixed_bops(LAYERS, OPTIONS, (4, 4))
    sizes = mixed_sizes(LAYERS, OPTIONS, parameters=16 * 8 * 6)
    at_4 = dict.fromkeys(table.layers, Setting(4, 4, 4))
    codes = sizes.of(at_4) - sizes.fixed
    return replace(table, sizes=replace(sizes, most=sizes.fixed + codes * 9 // 10)), table.of(at_4)


@pytest.mark.parametrize("sampler", Sampler)
def test_every_trial_keeps_the_size_too(
    tmp_path: Path, sized: tuple[BopsTable, int], sampler: Sampler
) -> None:
    table, budget = sized
    assert table.sizes is not None
    assert table.sizes.most is not None
    proposals = Proposals(tmp_path / "journal.log", "study", table, budget, [], sampler)
    tracker = InMemoryTracker()
    tracker.start(StudyRun("study", "key", {}, budget))
    driver = Driver(proposals, tracker, trials=30, images=2, budget=budget)
    while (proposal := driver.next()) is not None:
        assert proposal.size == table.sizes.of(proposal.allocation) <= table.sizes.most
        assert proposal.bops <= budget
        kls = [4.0 ** -float(str(c)[1]) for c in proposal.allocation.values()]
        driver.report(proposal.number, 0, [sum(kls), sum(kls) + 1])
        driver.finish(proposal.number, 1.0)
    never_sent = driver.snapshot.count(State.OVER_BUDGET)
    assert (never_sent > 0) == (sampler is Sampler.PLAIN)
    assert proposals.ended() == driver.snapshot.ended


def test_where_every_allocation_was_tried_it_still_answers(tmp_path: Path) -> None:
    table = BopsTable({"fc": {1: 1, 2: 2}}, fixed=0, base={"fc": 1})
    proposals = Proposals(tmp_path / "journal", "study", table, 2, [], Sampler.SURROGATE)
    for _ in range(12):
        proposal = proposals.ask()
        proposals.tell(Trial(proposal, State.COMPLETE, (1.0,), chunks=(1,)))


@pytest.mark.parametrize("sampler", [Sampler.SURROGATE, Sampler.LOCAL])
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
        raised = sum(asked[number][name] > best[name] for name in best)
        lowered = sum(asked[number][name] < best[name] for name in best)
        assert 0 < raised + lowered < len(best)


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
    table = BopsTable({name: {1: 1, 2: 2} for name in names}, fixed=0, base=dict.fromkeys(names, 1))
    assert Space(table).in_order
    assert Space(table.tied({"blocks.0": names[:2], "blocks.1": names[2:]})).in_order
    assert not Space(table.tied({"mlp.fc1": names[::2], "mlp.fc2": names[1::2]})).in_order
