"""Proposals from Optuna, its pruner's decisions, and the journal of a study.

The journal on disk is the truth about a study: a trial counts once its end stands there. Samplers
keep the limits, so that no trial is wasted; the proposals over a limit of one that does not
(`plain`) are recorded as pruned.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from igq import Allocation, Limits
from pipeline.proposals.encoding import Encoding
from pipeline.proposals.history import END, noted_of
from pipeline.proposals.journal import TOLD, ended_trials, opened, proposed, read_trial, reading
from pipeline.proposals.pruner import Leader, pruner_of
from pipeline.proposals.samplers import SAMPLERS, OptunaSampler, WithinLimits
from pipeline.proposals.seal import JournalSeal
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.request import Sampler
from pipeline.study.trials import Origin, Proposal, Trial

Baselines = Sequence[tuple[Origin, Allocation]]
"""The first allocations of a study, of what is chosen once, and who proposed them."""

METRIC = "KL (nats)"


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
        with reading(journal):
            self._storage = opened(journal)
            self._seal = JournalSeal(journal)
            self._study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                sampler=SAMPLERS[sampler](self._encoding, schedule, seed),
                pruner=pruner_of(schedule),
                load_if_exists=True,
            )
        self._identity = self._storage.get_study_id_from_name(name)
        self._running: dict[int, int] = {}
        self._waiting = True  # as far as is known: a trial in Optuna's queue
        if not self._study.get_trials(deepcopy=False) and "settings" not in self._study.user_attrs:
            self._say_names()
        if "baselines" not in self._study.user_attrs:
            begun = len(self._study.get_trials(deepcopy=False))
            for origin, allocation in baselines[begun:]:
                self._enqueue(self._encoding.encode(allocation), origin)
            self._study.set_user_attr("baselines", len(baselines))
        with reading(journal):
            self._recover()
            self._ended: tuple[Trial, ...] | None = ended_trials(self._study, self._encoding)
            self._leader = Leader(self._study)
        self._seal.renew()

    def ask(self) -> Proposal:
        """Return the next allocation to try; it may break a limit."""
        if self._waiting:
            waits = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            self._waiting = bool(waits)
        whole = not self._waiting and _samples_whole(self._study.sampler)
        trial = self._sampled() if whole else self._asked()
        origin = Origin(trial.user_attrs["origin"])
        self._running[trial.number] = self._identity_of(trial.number)
        return proposed(trial.number, origin, self._encoding.decode(trial.params), self._encoding)

    def allows(self, proposal: Proposal) -> bool:
        """Return whether a proposal keeps every limit."""
        trial = self._storage.get_trial(self._running[proposal.number])
        return self._limits.fits(self._encoding.decode(trial.params))

    def should_stop(self, number: int, chunk: int, kl: float) -> bool:
        """Take the mean KL of a chunk of images; return whether Optuna's pruner would stop here."""
        identity = self._running[number]
        self._storage.set_trial_intermediate_value(identity, chunk, kl)
        trial = self._storage.get_trial(identity)
        return self._study.pruner.prune(cast("optuna.Study", self._leader), trial)

    def tell(self, ended: Trial) -> None:
        """Write the end of a trial; from then on it counts."""
        noted = {
            "kls": list(ended.observation.kls),
            "shifts": list(ended.observation.logit_mses),
            "chunks": list(ended.chunks),
            "seconds": ended.seconds,
            **({"node": ended.node} if ended.node else {}),
            **({} if ended.error is None else {"error": ended.error}),
            "state": ended.state.value,
        }
        identity, self._ended = self._running.pop(ended.number), None
        self._storage.set_trial_user_attr(identity, END, noted)
        self._close(ended)
        self._leader.meet(self._storage.get_trial(identity))
        self._seal.renew()

    def ended(self) -> tuple[Trial, ...]:
        """Return every trial that has ended, in order; interrupted ones run again."""
        if self._ended is None:
            self._ended = ended_trials(self._study, self._encoding)
        return self._ended

    def _sampled(self) -> FrozenTrial:
        """Sample all layers together, and write the trial in one line of the journal."""
        past, sampler = self._study.get_trials(deepcopy=False), self._study.sampler
        distributions = dict(self._encoding.distributions)
        new = create_trial(state=TrialState.RUNNING)
        new.number = len(past)
        params = sampler.sample_relative(self._study, new, distributions)
        constraints = self._constraints(self._encoding.decode(params))
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs={"origin": Origin.SAMPLER.value},
        )
        for name, over in constraints.items():
            template.set_constraint(name, over)
        identity = self._storage.create_new_trial(self._identity, template)
        return self._storage.get_trial(identity)

    def _asked(self) -> FrozenTrial:
        """Have Optuna propose, layer by layer; or take a trial that waits."""
        trial = self._study.ask(dict(self._encoding.distributions))
        trial.set_user_attr("origin", trial.user_attrs.get("origin", Origin.SAMPLER.value))
        for name, over in self._constraints(self._encoding.decode(trial.params)).items():
            trial.set_constraint(name, over)
        return self._storage.get_trial(self._identity_of(trial.number))

    def _identity_of(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._identity, number)

    def _constraints(self, allocation: Allocation) -> dict[str, float]:
        """Return by how much an allocation is over each limit."""
        return {
            limit.table.unit.value: float(limit.table.of(allocation) - limit.most)
            for limit in self._limits.bounded
        }

    def _close(self, ended: Trial) -> None:
        """Tell Optuna the end of a trial, as `Study.tell` does, which also copies it whole."""
        state, identity = TOLD[ended.state], self._identity_of(ended.number)
        trial = self._storage.get_trial(identity)
        value = ended.kl if state is TrialState.COMPLETE else None
        if state is TrialState.PRUNED and trial.last_step is not None:
            value = trial.intermediate_values[trial.last_step]
        values = None if value is None else [value]
        self._study.sampler.after_trial(self._study, trial, state, values)
        self._storage.set_trial_state_values(identity, state, values)

    def _enqueue(self, params: Mapping[str, int], origin: Origin, again: int | None = None) -> None:
        noted = {"origin": origin.value, "params": dict(params), "again": again}
        self._study.enqueue_trial(dict(params), user_attrs=noted)

    def _say_names(self) -> None:
        """Name for Optuna's own tools what values and parameters are."""
        self._study.set_metric_names([METRIC])
        known = {name: list(map(str, some)) for name, some in self._encoding.settings.items()}
        self._study.set_user_attr("settings", known)

    def _recover(self) -> None:
        """End the trials of a driver that died as was noted, or else close them and run them again.

        This driver may die here too: a trial is queued first, and closed only then.
        """
        every = self._study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get("again") for trial in every}
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            if "state" in noted_of(trial):
                self._close(read_trial(trial, self._encoding))
                continue
            params = trial.user_attrs.get("params", trial.params)
            if params.keys() == self._encoding.distributions.keys() and trial.number not in queued:
                origin = Origin(trial.user_attrs.get("origin", Origin.SAMPLER))
                self._enqueue(params, origin, again=trial.number)
            self._study.tell(trial.number, state=TrialState.FAIL)


def _samples_whole(sampler: BaseSampler) -> bool:
    """Return whether a sampler needs no trial to sample: Optuna's own read it in the study."""
    return isinstance(sampler, WithinLimits) and not isinstance(sampler, OptunaSampler)
