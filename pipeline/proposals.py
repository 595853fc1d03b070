"""Optuna: what to try next, when to stop a trial, and the memory of a study.

The journal on disk is the truth about a study: a trial counts once its end stands there. Samplers
keep the budget, so that no trial is wasted; one that does not (`plain`) has its over-budget
proposals recorded as pruned.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from igq import Allocation, BopsTable
from pipeline.budget import Budgets
from pipeline.config import Sampler
from pipeline.errors import StudyError
from pipeline.memory import Space
from pipeline.samplers import make_sampler
from pipeline.study import Origin, Proposal, State, Trial

P_THRESHOLD = 0.1
"""A trial is stopped when a paired test finds it worse than the best at this level (our choice)."""


class Proposals:
    """A persistent Optuna study over allocations."""

    def __init__(
        self,
        journal: Path,
        name: str,
        bops: BopsTable,
        budget: int | Budgets,
        baselines: Sequence[tuple[Origin, Allocation]],
        sampler: Sampler = Sampler.SURROGATE,
        seed: int = 0,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        budgets = Budgets(budget, budget) if isinstance(budget, int) else budget
        self._budget, self._space = budgets.high, Space(bops)
        # Only one driver has the study open: a lock that is still there is a dead one's.
        Path(f"{journal}.lock").unlink(missing_ok=True)
        _drop_torn_line(journal)
        self._study = optuna.create_study(
            study_name=name,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=make_sampler(sampler, self._space, budgets, seed),
            pruner=_pruner(budgets),
            load_if_exists=True,
        )
        self._running: dict[int, optuna.trial.Trial] = {}
        if "baselines" not in self._study.user_attrs:
            for origin, allocation in baselines[len(self._study.trials) :]:
                self._enqueue(self._space.encode(allocation), origin)
            self._study.set_user_attr("baselines", len(baselines))
        self._recover()

    def ask(self) -> Proposal:
        """The next allocation to try; it may cost more than is allowed."""
        trial = self._study.ask(dict(self._space.distributions))
        origin = Origin(trial.user_attrs.get("origin", Origin.SAMPLER))
        trial.set_user_attr("origin", origin.value)
        allocation = self._space.decode(trial.params)
        limits = zip(("bops", "size"), self._space.bops.limits(self._budget), strict=False)
        for name, (table, most) in limits:
            trial.set_constraint(name, float(table.of(allocation) - most))
        self._running[trial.number] = trial
        return _proposal(trial.number, origin, allocation, self._space)

    def allows(self, proposal: Proposal) -> bool:
        """Whether what was asked for keeps the budget, and the size where that is limited."""
        allocation = self._space.decode(self._running[proposal.number].params)
        return self._space.bops.fits(allocation, self._budget)

    def should_stop(self, number: int, chunk: int, kl: float) -> bool:
        """Take the mean KL of a chunk of images; whether Optuna's pruner would go no further."""
        trial = self._running[number]
        trial.report(kl, chunk)
        return bool(trial.should_prune())

    def tell(self, ended: Trial) -> None:
        """Write down how a trial ended; from then on it counts."""
        trial = self._running.pop(ended.number)
        trial.set_user_attr("kls", list(ended.kls))
        trial.set_user_attr("chunks", list(ended.chunks))
        trial.set_user_attr("shifts", list(ended.shifts))
        trial.set_user_attr("seconds", ended.seconds)
        if ended.error is not None:
            trial.set_user_attr("error", ended.error)
        trial.set_user_attr("state", ended.state.value)  # the last: all is noted
        self._close(ended)

    def ended(self) -> tuple[Trial, ...]:
        """Every trial that has ended, in order; interrupted ones, which run again, left out."""
        return _ended(self._study, self._space)

    def _close(self, ended: Trial) -> None:
        state = _TOLD[ended.state]
        self._study.tell(ended.number, ended.kl if state is TrialState.COMPLETE else None, state)

    def _enqueue(self, params: Mapping[str, int], origin: Origin, again: int | None = None) -> None:
        noted = {"origin": origin.value, "params": dict(params), "again": again}
        self._study.enqueue_trial(dict(params), user_attrs=noted)

    def _recover(self) -> None:
        """Trials of a driver that died end as was noted, or else are closed and run again.

        This driver may die here too: a trial is queued first, and closed only then.
        """
        queued = {trial.user_attrs.get("again") for trial in self._study.trials}
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            if "state" in trial.user_attrs:
                self._close(_trial(trial, self._space))
                continue
            params = trial.user_attrs.get("params", trial.params)
            if params.keys() == self._space.distributions.keys() and trial.number not in queued:
                origin = Origin(trial.user_attrs.get("origin", Origin.SAMPLER))
                self._enqueue(params, origin, again=trial.number)
            self._study.tell(trial.number, state=TrialState.FAIL)


def read_trials(journal: Path, name: str, bops: BopsTable) -> tuple[Trial, ...]:
    """The trials that have ended in a study's journal, which is only read.

    Raises:
        StudyError: there is no such journal, or no study in it.
    """
    if not journal.exists():
        raise StudyError(f"a study must hold {journal.name}, but {journal.parent} has none.")
    storage = JournalStorage(JournalFileBackend(str(journal)))
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise StudyError(f"{journal} must hold the study {name}, but does not.") from error
    return _ended(study, Space(bops))


def _drop_torn_line(journal: Path) -> None:
    """Drop a line that its driver did not live to end, or else the next one would join it."""
    if journal.exists() and not (content := journal.read_bytes()).endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _ended(study: optuna.Study, space: Space) -> tuple[Trial, ...]:
    finished = study.get_trials(deepcopy=False, states=tuple(_TOLD.values()))
    return tuple(_trial(trial, space) for trial in finished if "state" in trial.user_attrs)


def _trial(trial: FrozenTrial, space: Space) -> Trial:
    noted = trial.user_attrs
    return Trial(
        _proposal(trial.number, Origin(noted["origin"]), space.decode(trial.params), space),
        State(noted["state"]),
        tuple(noted["kls"]),
        noted["seconds"],
        noted.get("error"),
        tuple(noted["chunks"]),
        tuple(noted.get("shifts", ())),
    )


def _proposal(number: int, origin: Origin, allocation: Allocation, space: Space) -> Proposal:
    """What the table's entries get, as what the model's layers get."""
    bops = space.bops
    cost, size = bops.of(allocation), bops.size_of(allocation)
    return Proposal(number, origin, space.of_layers(allocation), cost, size)


_TOLD = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.OVER_BUDGET: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


def _pruner(budgets: Budgets) -> BasePruner:
    """None for a range of budgets: a cheap allocation is worse than the best and still wanted."""
    return WilcoxonPruner(p_threshold=P_THRESHOLD) if budgets.low == budgets.high else NopPruner()
