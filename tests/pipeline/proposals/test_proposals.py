"""The memory of a study: what Optuna proposes, and what outlives the driver that asked."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from igq import Allocation, Limits, Observation
from pipeline.errors import StudyError
from pipeline.proposals import Proposals, read_trials
from pipeline.proposals.seal import JournalSeal
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin, Proposal, State, Trial

ROOT = Path(__file__).resolve().parents[3]
KEEPS_BUDGET = [sampler for sampler in Sampler if sampler is not Sampler.PLAIN]
Open = Callable[..., Proposals]

DRIVER = """
import os, pickle, signal, sys
from pathlib import Path
from pipeline.proposals import Proposals
from igq import Observation
from pipeline.study.trials import State, Trial

journal, asked, told = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
arguments = pickle.loads(Path(sys.argv[4]).read_bytes())
proposals = Proposals(journal, **arguments)
for _ in range(told):
    proposal = proposals.ask()
    kls = tuple(1 / s.num_groups for s in proposal.allocation.values())
    trial = Trial(proposal, State.COMPLETE, Observation(kls), 0.5, chunks=(len(kls),))
    proposals.tell(trial)
for _ in range(asked - told):
    proposals.ask()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def wide(limits: Limits) -> Limits:
    """The limits with the budget of 4 groups everywhere."""
    return limits.table.limit(uniform=4)


@pytest.fixture
def baselines(limits: Limits) -> list[tuple[Origin, Allocation]]:
    names = list(limits.names)
    return [
        (Origin.UNIFORM, Allocation.of(dict.fromkeys(names, 4))),
        (Origin.ILP, Allocation.of({name: 2 ** (i % 3) for i, name in enumerate(names)})),
        (Origin.RANDOM, Allocation.of(dict.fromkeys(names, 1))),
    ]


@pytest.fixture
def arguments(wide: Limits, baselines: list[tuple[Origin, Allocation]]) -> dict[str, Any]:
    schedule = BudgetSchedule(wide.budget, wide.budget)
    return {"name": "study", "limits": wide, "schedule": schedule, "baselines": baselines}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


@pytest.fixture
def reopen(journal: Path, arguments: dict[str, Any]) -> Open:
    """Open the study in `journal`, as a new driver would."""
    return lambda path=journal, **more: Proposals(path, **arguments | more)


def outcome(proposal: Proposal, state: State = State.COMPLETE) -> Trial:
    """Return the outcome of a proposal: more groups are better."""
    kls = tuple(1 / (s.num_groups or 1) for s in proposal.allocation.values())
    return Trial(proposal, state, Observation(kls), 0.5, chunks=(len(kls),))


def play(proposals: Proposals, trials: int) -> list[Proposal]:
    played = []
    for _ in range(trials):
        played.append(proposals.ask())
        proposals.tell(outcome(played[-1]))
    return played


def frozen(journal: Path) -> list[FrozenTrial]:
    """The trials as Optuna itself has them."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="study", storage=storage).trials


def allocations(proposals: list[Proposal]) -> list[Allocation]:
    return [proposal.allocation for proposal in proposals]


class TestAsking:
    def test_baselines_come_first_and_in_order(
        self, reopen: Open, baselines: list[tuple[Origin, Allocation]]
    ) -> None:
        asked = play(reopen(), 4)
        assert [(p.origin, p.allocation) for p in asked[:3]] == baselines
        assert asked[3].origin is Origin.SAMPLER
        assert [p.number for p in asked] == [0, 1, 2, 3]

    @pytest.mark.parametrize("sampler", KEEPS_BUDGET)
    def test_all_are_within_the_budget_and_none_comes_twice(
        self, reopen: Open, wide: Limits, sampler: Sampler
    ) -> None:
        asked = play(reopen(sampler=sampler), 25)
        assert all(p.cost == wide.table.of(p.allocation) <= wide.budget for p in asked)
        assert len(set(allocations(asked))) == 25

    @pytest.mark.parametrize("sampler", KEEPS_BUDGET)
    def test_none_comes_twice_while_others_still_run(self, reopen: Open, sampler: Sampler) -> None:
        proposals = reopen(sampler=sampler)
        asked = [proposals.ask() for _ in range(15)]
        assert len(set(allocations(asked))) == 15

    @pytest.mark.parametrize("sampler", list(Sampler))
    def test_a_seed_decides_what_is_proposed(
        self, reopen: Open, tmp_path: Path, sampler: Sampler
    ) -> None:
        first, again, other = (
            play(reopen(tmp_path / name, sampler=sampler, seed=seed), 16)[3:]
            for name, seed in (("a", 0), ("b", 0), ("c", 1))
        )
        assert first == again
        assert first != other

    def test_tpe_learns_from_what_it_was_told(self, reopen: Open, tmp_path: Path) -> None:
        """The same seed, other outcomes: the proposals part once Optuna's startup is over."""
        played = []
        for sign, name in ((1, "a"), (-1, "b")):
            proposals = reopen(tmp_path / name, sampler=Sampler.TPE)
            asked = []
            for _ in range(25):
                asked.append(proposals.ask())
                groups = [s.num_groups or 1 for s in asked[-1].allocation.values()]
                seen = Observation(tuple(9.0 + sign * g for g in groups))
                proposals.tell(Trial(asked[-1], State.COMPLETE, seen, chunks=(len(seen),)))
            played.append(asked)
        assert played[0][:10] == played[1][:10]
        assert played[0][10:] != played[1][10:]


class TestPlainSampler:
    def test_proposals_over_the_budget_end_as_pruned_with_the_constraint_violated(
        self, reopen: Open, journal: Path, wide: Limits
    ) -> None:
        proposals = reopen(sampler=Sampler.PLAIN, baselines=[])
        asked = [proposals.ask() for _ in range(20)]
        over = [proposal for proposal in asked if proposal.cost > wide.budget]
        assert over
        for proposal in over:
            proposals.tell(Trial(proposal, State.OVER_BUDGET))
        for proposal in over:
            noted = frozen(journal)[proposal.number]
            assert noted.state is TrialState.PRUNED
            assert noted.constraints == {"bops": float(proposal.cost - wide.budget)}
        assert [trial.state for trial in proposals.ended()] == [State.OVER_BUDGET] * len(over)

    def test_optuna_s_own_best_is_within_the_budget_too(self, reopen: Open, journal: Path) -> None:
        play(reopen(sampler=Sampler.PLAIN), 20)  # also those over the budget are told complete
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.load_study(study_name="study", storage=storage)
        assert study.best_trial.constraints["bops"] <= 0


class TestPruner:
    def test_a_trial_that_is_worse_on_every_chunk_is_stopped(self, reopen: Open) -> None:
        proposals = reopen()
        good = proposals.ask()
        for chunk in range(8):
            assert not proposals.should_stop(good.number, chunk, 1.0 + chunk)
        proposals.tell(outcome(good))
        bad = proposals.ask()
        assert True in {proposals.should_stop(bad.number, c, 2.0 + c) for c in range(8)}

    def test_a_trial_that_is_better_on_every_chunk_goes_on(self, reopen: Open) -> None:
        proposals = reopen()
        first = proposals.ask()
        for chunk in range(8):
            proposals.should_stop(first.number, chunk, 1.0 + chunk)
        proposals.tell(outcome(first))
        better = proposals.ask()
        assert True not in {proposals.should_stop(better.number, c, 0.5 + c) for c in range(8)}


class TestMemory:
    @pytest.mark.parametrize("state", list(State))
    def test_a_trial_is_remembered_as_it_ended(
        self, reopen: Open, journal: Path, wide: Limits, state: State
    ) -> None:
        first = reopen()
        proposal = first.ask()
        told = Trial(
            proposal, state, Observation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), 1.5, "why", (2, 1)
        )
        first.tell(told)
        assert first.ended() == (told,)
        assert reopen().ended() == (told,)
        assert read_trials(journal, "study", wide) == (told,)

    def test_a_reopened_study_goes_on_as_if_it_had_never_been_closed(
        self, reopen: Open, tmp_path: Path
    ) -> None:
        whole = play(reopen(tmp_path / "whole"), 16)
        parts = play(reopen(), 2) + play(reopen(), 9) + play(reopen(), 5)
        assert parts == whole
        assert [trial.number for trial in reopen().ended()] == list(range(16))

    def test_a_longer_list_of_baselines_does_not_come_again(
        self, reopen: Open, baselines: list[tuple[Origin, Allocation]]
    ) -> None:
        play(reopen(), 3)
        assert reopen(baselines=baselines * 2).ask().origin is Origin.SAMPLER

    def test_reading_changes_nothing(self, reopen: Open, journal: Path, wide: Limits) -> None:
        proposals = reopen()
        play(proposals, 2)
        proposals.ask()  # still running
        before = journal.read_bytes()
        assert len(read_trials(journal, "study", wide)) == 2
        assert journal.read_bytes() == before

    def test_reading_needs_a_journal(self, journal: Path, wide: Limits) -> None:
        with pytest.raises(
            StudyError, match=r"^a study must hold journal\.log, but .* has none\.$"
        ):
            read_trials(journal, "study", wide)
        assert not journal.exists()

    def test_reading_a_journal_that_no_trial_has_reached_yet(
        self, journal: Path, wide: Limits
    ) -> None:
        journal.touch()
        with pytest.raises(StudyError, match="study"):
            read_trials(journal, "study", wide)


class TestEditedJournals:
    EDITS = (
        ('"kls",', '"other",', "KeyError: 'kls'"),
        ('"kls":[0.1', '"kls":[NaN', "has nan in kls, which is no number"),
        ('"kls":[0.1', '"kls":[true', "has True in kls, which is no number"),
        ('"chunks":[2,1]', '"chunks":[2]', r"has 3 KLs in chunks of \[2\]"),
        ('"seconds":1.5', '"seconds":null', "has None in seconds, which is no number"),
        ('"state":"complete"', '"state":"won"', "'won' is not a valid State"),
        ('"error":"why"', '"error":[1]', r"error is \[1\], which is no text"),
        ('"param_value_internal":', '"param_value_internal":-', "has setting -"),
        ('"op_code":', '"op_code":"x', "JSONDecodeError: "),
    )

    @pytest.mark.parametrize(("old", "new", "said"), EDITS, ids=[new for _, new, _ in EDITS])
    def test_an_outcome_that_no_trial_has_is_refused(
        self, reopen: Open, journal: Path, wide: Limits, old: str, new: str, said: str
    ) -> None:
        first = reopen()
        seen = Observation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
        first.tell(Trial(first.ask(), State.COMPLETE, seen, 1.5, "why", (2, 1)))
        text = journal.read_text()
        edited = text.replace('"kls":', '"other":') if old == '"kls",' else text.replace(old, new)
        assert edited != text
        journal.write_text(edited)
        JournalSeal(journal).renew()  # whoever edits may seal too
        rule = rf"journal\.log must be the journal of a study, but is damaged \(.*{said}.*\); put"
        with pytest.raises(StudyError, match=rule):
            read_trials(journal, "study", wide)
        with pytest.raises(StudyError, match=rule):
            reopen()


class TestInterruption:
    def test_what_was_running_is_closed_and_proposed_again_as_it_was(
        self, reopen: Open, journal: Path
    ) -> None:
        first = reopen()
        told = play(first, 1)
        running = [first.ask() for _ in range(4)]  # two baselines, two of the sampler's
        JournalSeal(journal).renew()  # as when another trial has ended meanwhile

        again = reopen()
        assert [p.number for p in told] == [trial.number for trial in again.ended()]
        assert [t.state for t in frozen(journal)[1:5]] == [TrialState.FAIL] * 4
        asked = [again.ask() for _ in range(5)]
        assert [(p.origin, p.allocation) for p in asked[:4]] == [
            (p.origin, p.allocation) for p in running
        ]
        assert asked[4].allocation not in allocations(told + running)

    def test_what_began_after_the_last_end_leaves_no_trace_and_is_proposed_again(
        self, reopen: Open, journal: Path
    ) -> None:
        first = reopen()
        play(first, 1)
        running = [first.ask() for _ in range(3)]
        again = reopen()
        assert len(frozen(journal)) == 3  # with the two baselines that wait
        assert [again.ask() for _ in range(3)] == running

    def test_interrupted_again_and_again_each_baseline_still_runs_once(
        self, reopen: Open, baselines: list[tuple[Origin, Allocation]]
    ) -> None:
        for _ in range(3):
            reopen().ask()
        asked = play(reopen(), 4)
        assert {(p.origin, p.allocation) for p in asked[:3]} == set(baselines)
        assert asked[3].origin is Origin.SAMPLER
        assert len(reopen().ended()) == 4

    def test_killed_while_asking_it_loses_no_baseline(
        self, reopen: Open, baselines: list[tuple[Origin, Allocation]], journal: Path
    ) -> None:
        """The journal ends after the first of the asked trial's parameters."""
        reopen().ask()
        _cut_after(journal, lambda record: "param_name" in record)
        assert len(frozen(journal)[0].params) == 1
        again = {(p.origin, p.allocation) for p in play(reopen(), 3)}
        assert again == set(baselines)

    def test_killed_while_the_baselines_are_written_it_still_proposes_all_of_them(
        self, reopen: Open, baselines: list[tuple[Origin, Allocation]], journal: Path
    ) -> None:
        reopen()
        _cut_after(journal, lambda record: "origin" in str(record))
        assert len(frozen(journal)) == 1
        assert [(p.origin, p.allocation) for p in play(reopen(), 3)] == baselines

    def test_killed_while_telling_a_trial_ends_once(self, reopen: Open, journal: Path) -> None:
        """The journal has what the trial reached, but not yet Optuna's word for its end."""
        proposals = reopen()
        proposal = proposals.ask()
        proposals.tell(outcome(proposal))
        _cut_after(journal, lambda record: "end" in record.get("user_attr", {}))
        assert frozen(journal)[0].state is TrialState.RUNNING

        again = reopen()
        assert again.ended() == (outcome(proposal),)
        assert frozen(journal)[0].state is TrialState.COMPLETE
        assert [p.origin for p in play(again, 3)] == [Origin.ILP, Origin.RANDOM, Origin.SAMPLER]

    def test_killed_while_recovering_a_trial_is_neither_lost_nor_proposed_twice(
        self, reopen: Open, journal: Path
    ) -> None:
        play(reopen(), 3)
        lost = reopen().ask()
        written = journal.read_bytes().count(b"\n")
        reopen()
        whole = journal.read_bytes().splitlines(keepends=True)
        for end in range(written, len(whole) + 1):
            journal.write_bytes(b"".join(whole[:end]))
            asked = play(reopen(), 2)
            assert allocations(asked).count(lost.allocation) == 1, f"cut after {end} lines"

    def test_killed_while_writing_a_line_the_journal_can_still_be_read_and_written(
        self, reopen: Open, journal: Path
    ) -> None:
        play(reopen(), 3)
        with journal.open("ab") as file:
            file.write(b'{"op_code":4,"worker_id":"')
        assert len(play(reopen(), 2)) == 2
        assert len(reopen().ended()) == 5

    def test_a_lock_that_a_dead_driver_left_does_not_block(
        self, reopen: Open, journal: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_waiting(seconds: float) -> None:
            raise AssertionError("waited for the lock of a driver that is dead")

        play(reopen(), 1)
        Path(f"{journal}.lock").symlink_to(journal)
        monkeypatch.setattr("optuna.storages.journal._file.time.sleep", no_waiting)
        assert len(play(reopen(), 1)) == 1


class TestAnotherProcess:
    @pytest.fixture
    def killed(self, journal: Path, arguments: dict[str, Any], tmp_path: Path) -> int:
        """A driver that has told 12 of 14 trials when it is killed; gives its exit code."""
        pickled = tmp_path / "arguments"
        pickled.write_bytes(pickle.dumps(arguments))
        command = [sys.executable, "-c", DRIVER, str(journal), "14", "12", str(pickled)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, timeout=120).returncode

    @pytest.mark.slow
    def test_a_killed_driver_s_study_is_what_an_uninterrupted_one_would_be(
        self, killed: int, reopen: Open, tmp_path: Path
    ) -> None:
        assert killed == -signal.SIGKILL
        here = reopen(tmp_path / "here")
        expected = play(here, 12)
        expected_running = [here.ask(), here.ask()]

        after = reopen()
        assert [trial.proposal for trial in after.ended()] == expected
        again = play(after, 2)
        assert allocations(again) == allocations(expected_running)
        assert len(set(allocations(expected + again))) == 14


def _cut_after(journal: Path, match: Callable[[dict[str, Any]], bool]) -> None:
    """Leave the journal as it was when the first matching record had been written, and sealed."""
    lines = journal.read_text().splitlines(keepends=True)
    end = next(i for i, line in enumerate(lines) if match(json.loads(line)))
    journal.write_text("".join(lines[: end + 1]))
    JournalSeal(journal).renew()
