"""Ray Tune at work: it starts workers, keeps them busy and replaces the lost ones.

The feed decides what is tried and when a trial stops. Each of Tune's own trials is a batch of ours.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipeline.cluster.base import pass_on
from pipeline.cluster.batches import Batch, Pace
from pipeline.cluster.evaluator import Evaluator, Report, together
from pipeline.cluster.feed import ProposalFeed
from pipeline.cluster.placement import Share
from pipeline.cluster.ray.nodes import Versions, check_versions, own_name
from pipeline.cluster.ray.watching import Watch
from pipeline.evaluation.task import Task
from pipeline.study.trials import Proposal
from pipeline.versions import versions

RETRIES = 2
"""Times that a trial runs again because a worker was lost that had it alone."""
START_SECONDS = 120.0
"""How long workers may fail to start before trials are blamed (our choice).

Ray goes on sending work to a node that died for half a minute, until it has counted it as dead.
"""
PAUSE = 1.0
"""Seconds without a new trial after a worker that did not start."""
MANY = 2**20
"""More batches than ever run at once: `Proposals` says how many may."""


def run_trials(task: Task, feed: ProposalFeed, share: Share, watch: Watch) -> None:
    """Run trials on the connected cluster, while there is room, until the feed has no more."""
    proposals = Proposals(feed, watch.room)
    failed: Exception | None = None
    sent = {"task": task, "share": share, "wanted": versions()}
    try:
        with tempfile.TemporaryDirectory(prefix="igq-") as folder:
            tune.run(
                # Each value goes to Ray's object store once, and from there to each node once.
                tune.with_parameters(IgqTrial, **sent),
                num_samples=-1,
                search_alg=proposals,
                scheduler=_Reports(proposals),
                max_concurrent_trials=MANY,
                resources_per_trial=dict(share.resources),
                reuse_actors=True,
                max_failures=0,  # `Proposals` tries again, what has not ended and nothing else
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                trial_dirname_creator=lambda trial: trial.trial_id,  # its own: long as the config
                storage_path=folder,
                callbacks=[_Watching(watch, proposals)],
                verbose=0,
            )
    except _FeedError as error:
        failed = error.args[0]
    if failed is not None:  # raised here it does not follow from what carried it
        raise failed


class IgqTrial(tune.Trainable):
    """A worker: one step is one message. Tune hands it one batch after the other."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], task: Task, share: Share, wanted: Versions
    ) -> None:
        node = own_name()
        check_versions(node, versions(), wanted)  # it may have joined since the search began
        torch.set_num_threads(share.threads)
        self._evaluator = Evaluator(task, "cuda" if share.gpus else "cpu", node)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        proposals = new_config.pop("batch").proposals  # Tune sends back what it finds there
        self._messages = together(chain.from_iterable(map(self._evaluator.reports, proposals)))
        return True

    def step(self) -> dict[str, Any]:
        return {"reports": next(self._messages)}


class _FeedError(BaseException):
    """An error of the feed on its way through Tune, which swallows or wraps any `Exception`."""


@contextmanager
def _through_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _FeedError(error) from error


@dataclass(frozen=True)
class Lost:
    """The way in which a batch went wrong."""

    reason: str
    raised: bool = False
    """Whether code raised an error, be it the worker's own while it started."""


class Proposals(Searcher):
    """Asks the feed for trials, on behalf of Tune, while there is room for one more batch."""

    def __init__(
        self, feed: ProposalFeed, room: Callable[[], int], pace: Pace | None = None
    ) -> None:
        super().__init__()
        self.lost = Lost("")
        """The way in which a batch went wrong last."""
        self._feed, self._room = feed, room
        self._pace = pace or Pace()
        self._live: dict[str, dict[int, Proposal]] = {}  # of each batch what has not ended
        self._begun: set[str] = set()
        self._again: list[Proposal] = []
        self._tries: Counter[int] = Counter()
        self._stuck: float | None = None  # since when no worker has started
        self._paused = float("-inf")

    @_through_tune()
    def suggest(self, trial_id: str) -> Any:
        room = self._room()
        if len(self._live) >= room or time.monotonic() < self._paused:
            return None
        batch = [self._again.pop(0)] if self._again else self._proposed(room)
        if not batch:
            return None if self._live else Searcher.FINISHED
        self._live[trial_id] = {proposal.number: proposal for proposal in batch}
        return {"batch": Batch(tuple(batch))}

    def began(self, trial_id: str) -> None:
        """Take note that a worker is at work on a batch."""
        self._begun.add(trial_id)
        self._stuck = None

    @_through_tune()
    def take(self, trial_id: str, reports: Iterable[Report]) -> bool:
        """Pass a message on; return whether all trials of its batch have ended.

        A worker learns that a trial was stopped when it has sent its message, or a later one of
        the same batch: nobody hears what it says of the trial meanwhile.
        """
        live = self._live[trial_id]
        for report in reports:
            if report.number in live and pass_on(self._feed, report):
                del live[report.number]
            if report.last and report.error is None:
                self._pace = self._pace.after(report.seconds)
        return not live

    @_through_tune()
    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        left = list(self._live.pop(trial_id, {}).values())
        begun = trial_id in self._begun
        self._begun.discard(trial_id)
        if error:
            # Nobody knows which trial of a batch is to blame: each has a worker to itself now.
            blamed = self._counts(begun) and len(left) == 1
            for proposal in left:
                self._try_again(proposal, blamed)

    def _counts(self, begun: bool) -> bool:
        """Return whether a loss counts as a try: not for a while, where no worker starts."""
        if begun or self.lost.raised:
            return True
        now = time.monotonic()
        self._paused = now + PAUSE
        self._stuck = now if self._stuck is None else self._stuck
        return now - self._stuck >= START_SECONDS

    def _try_again(self, proposal: Proposal, blamed: bool) -> None:
        self._tries[proposal.number] += blamed
        if self._tries[proposal.number] > RETRIES:
            self._feed.finish(proposal.number, 0.0, self.lost.reason)
        else:
            self._again.append(proposal)

    def _proposed(self, room: int) -> list[Proposal]:
        """Return proposals for a batch; none where the feed has no more."""
        return list(islice(iter(self._feed.next, None), self._pace.batch(self._feed.left, room)))


class _Watching(tune.Callback):
    """Notes that workers begin, and ends a run whose cluster is gone, on behalf of Tune."""

    def __init__(self, watch: Watch, proposals: Proposals) -> None:
        self._watch, self._proposals = watch, proposals

    @_through_tune()
    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._watch.check()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._proposals.began(trial.trial_id)


class _Reports(FIFOScheduler):
    """Passes messages on, on behalf of Tune, and tells Tune whether their batch goes on."""

    def __init__(self, proposals: Proposals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proposals = proposals

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        ended = self._proposals.take(trial.trial_id, result["reports"])
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = trial.get_pickled_error()
        died = error is None or isinstance(error, RayActorError)
        self._proposals.lost = Lost(_reason(trial), not died or "creation task" in str(error))


def _reason(trial: Trial) -> str:
    """Return why a trial failed; of a node that died Tune keeps a text alone, or nothing."""
    if (error := trial.get_pickled_error()) is not None:
        return f"{type(error).__name__}: {error}"
    lines = str(trial.get_error() or "").strip().splitlines()
    return lines[-1] if lines else "ActorDiedError: its worker was lost"
