"""Proposals from Optuna, its pruner's decisions, and the journal of a study.

The journal on disk is the truth about a study: a trial counts once its end stands there. Samplers
keep the limits, so that no trial is wasted; the proposals over a limit of one that does not
(`plain`) are recorded as pruned.
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

from igq import Allocation, Limits, Observation
from pipeline.errors import StudyError
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.journal import JournalSeal, ReadOnly, reopen, sealed_part
from pipeline.proposals.samplers import SAMPLERS
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin, Proposal, State, Trial

Baselines = Sequence[tuple[Origin, Allocation]]
"""The first allocations of a study, of what is chosen once, and who proposed them."""

P_THRESHOLD = 0.1
"""A trial is stopped when a paired test finds it worse than the best at this level (our choice)."""


class Proposals:
    """A persistent Optuna study over allocations."""

    def __init__(
        self,
        journal: Path,
        name: str,
        limits: Limits,
        schedule: BudgetSchedule,
        baselines: Baselines,
        sampler: Sampler = Sampler.SURROGATE,
        seed: int = 0,
    ) -> None:
        logging.getLogger("optuna").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._limits, self._encoding = limits.with_budget(schedule.high), Encoding(limits)
        # Only one driver has the study open: a lock that is still there is a dead one's.
        Path(f"{journal}.lock").unlink(missing_ok=True)
        reopen(journal)
        self._seal = JournalSeal(journal)
        self._study = optuna.create_study(
            study_name=name,
            storage=JournalStorage(JournalFileBackend(str(journal))),
            sampler=SAMPLERS[sampler](self._encoding, schedule, seed),
            pruner=_pruner(schedule),
            load_if_exists=True,
        )
        self._running: dict[int, optuna.trial.Trial] = {}
        if "baselines" not in self._study.user_attrs:
            for origin, allocation in baselines[len(self._study.trials) :]:
                self._enqueue(self._encoding.encode(allocation), origin)
            self._study.set_user_attr("baselines", len(baselines))
        self._recover()
        self._seal.renew()

    def ask(self) -> Proposal:
        """Return the next allocation to try; it may break a limit."""
        trial = self._study.ask(dict(self._encoding.distributions))
        origin = Origin(trial.user_attrs.get("origin", Origin.SAMPLER))
        trial.set_user_attr("origin", origin.value)
        allocation = self._encoding.decode(trial.params)
        for limit in self._limits.bounded:
            over = limit.table.of(allocation) - limit.most
            trial.set_constraint(limit.table.unit.value, float(over))
        self._running[trial.number] = trial
        return _proposal(trial.number, origin, allocation, self._encoding)

    def allows(self, proposal: Proposal) -> bool:
        """Return whether a proposal keeps every limit."""
        allocation = self._encoding.decode(self._running[proposal.number].params)
        return self._limits.fits(allocation)

    def should_stop(self, number: int, chunk: int, kl: float) -> bool:
        """Take the mean KL of a chunk of images; return whether Optuna's pruner would stop here."""
        trial = self._running[number]
        trial.report(kl, chunk)
        return bool(trial.should_prune())

    def tell(self, ended: Trial) -> None:
        """Write the end of a trial; from then on it counts."""
        trial = self._running.pop(ended.number)
        trial.set_user_attr("kls", list(ended.observation.kls))
        trial.set_user_attr("chunks", list(ended.chunks))
        trial.set_user_attr("shifts", list(ended.observation.logit_mses))
        trial.set_user_attr("seconds", ended.seconds)
        if ended.node:
            trial.set_user_attr("node", ended.node)
        if ended.error is not None:
            trial.set_user_attr("error", ended.error)
        trial.set_user_attr("state", ended.state.value)  # last: from here on all is noted
        self._close(ended)
        self._seal.renew()

    def ended(self) -> tuple[Trial, ...]:
        """Return every trial that has ended, in order; interrupted ones run again."""
        return _ended(self._study, self._encoding)

    def _close(self, ended: Trial) -> None:
        state = _TOLD[ended.state]
        self._study.tell(ended.number, ended.kl if state is TrialState.COMPLETE else None, state)

    def _enqueue(self, params: Mapping[str, int], origin: Origin, again: int | None = None) -> None:
        noted = {"origin": origin.value, "params": dict(params), "again": again}
        self._study.enqueue_trial(dict(params), user_attrs=noted)

    def _recover(self) -> None:
        """End the trials of a driver that died as was noted, or else close them and run them again.

        This driver may die here too: a trial is queued first, and closed only then.
        """
        queued = {trial.user_attrs.get("again") for trial in self._study.trials}
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            if "state" in trial.user_attrs:
                self._close(_trial(trial, self._encoding))
                continue
            params = trial.user_attrs.get("params", trial.params)
            if params.keys() == self._encoding.distributions.keys() and trial.number not in queued:
                origin = Origin(trial.user_attrs.get("origin", Origin.SAMPLER))
                self._enqueue(params, origin, again=trial.number)
            self._study.tell(trial.number, state=TrialState.FAIL)


def read_trials(journal: Path, name: str, limits: Limits) -> tuple[Trial, ...]:
    """Return the trials that have ended in a study's journal, which is only read.

    Raises:
        StudyError: there is no such journal, or no study in it.
    """
    if not journal.exists():
        raise StudyError(f"a study must hold {journal.name}, but {journal.parent} has none.")
    content = sealed_part(journal)
    try:
        storage = JournalStorage(ReadOnly(content))
        if name not in {study.study_name for study in storage.get_all_studies()}:
            raise StudyError(f"{journal} must hold the study {name}, but does not.")
        study = optuna.load_study(study_name=name, storage=storage)
        return _ended(study, Encoding(limits))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StudyError(f"{journal} must be a journal of Optuna's, but: {error!r}") from error


def _ended(study: optuna.Study, encoding: Encoding) -> tuple[Trial, ...]:
    finished = study.get_trials(deepcopy=False, states=tuple(_TOLD.values()))
    return tuple(_trial(trial, encoding) for trial in finished if "state" in trial.user_attrs)


def _trial(trial: FrozenTrial, encoding: Encoding) -> Trial:
    noted = trial.user_attrs
    return Trial(
        _proposal(trial.number, Origin(noted["origin"]), encoding.decode(trial.params), encoding),
        State(noted["state"]),
        Observation(tuple(noted["kls"]), tuple(noted.get("shifts", ()))),
        noted["seconds"],
        noted.get("error"),
        tuple(noted["chunks"]),
        noted.get("node", ""),
    )


def _proposal(number: int, origin: Origin, allocation: Allocation, encoding: Encoding) -> Proposal:
    """Return a proposal layer by layer, with its costs."""
    costs = encoding.limits.costs(allocation)
    return Proposal(number, origin, encoding.of_layers(allocation), costs)


_TOLD = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.OVER_BUDGET: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


def _pruner(schedule: BudgetSchedule) -> BasePruner:
    """Return no pruner for several budgets: a cheap allocation is wanted though it is worse."""
    return WilcoxonPruner(p_threshold=P_THRESHOLD) if schedule.single else NopPruner()
