"""Ray Tune at work: it starts workers, keeps them busy and replaces the lost ones.

The feed decides what is tried and when a trial stops.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipeline.cluster.base import pass_on
from pipeline.cluster.evaluator import Evaluator, together
from pipeline.cluster.feed import ProposalFeed
from pipeline.cluster.placement import Share
from pipeline.cluster.ray.nodes import Versions, check_versions, own_name
from pipeline.cluster.ray.watching import Watch
from pipeline.evaluation.task import Task
from pipeline.versions import versions

RETRIES = 2  # of a trial whose worker was lost
START_SECONDS = 120.0
"""How long workers may fail to start before trials are blamed (our choice).

Ray goes on sending work to a node that died for half a minute, until it has counted it as dead.
"""
PAUSE = 1.0
"""Seconds without a new trial after a worker that did not start."""
MANY = 2**20
"""More trials than ever run at once: `Proposals` says how many may."""


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
                max_failures=RETRIES,
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                trial_dirname_creator=lambda trial: trial.trial_id,  # its own: long as the config
                storage_path=folder,
                callbacks=[_Watching(watch)],
                verbose=0,
            )
    except _FeedError as error:
        failed = error.args[0]
    if failed is not None:  # raised here it does not follow from what carried it
        raise failed


class IgqTrial(tune.Trainable):
    """A worker: one step is one message. Tune hands it one trial after the other."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], task: Task, share: Share, wanted: Versions
    ) -> None:
        node = own_name()
        check_versions(node, versions(), wanted)  # it may have joined since the search began
        torch.set_num_threads(share.threads)
        self._evaluator = Evaluator(task, "cuda" if share.gpus else "cpu", node)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._messages = together(self._evaluator.reports(dict(new_config["allocation"])))
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
    """A trial that went wrong."""

    number: int
    reason: str
    begun: bool
    """Whether a worker was at it; otherwise none could be started for it."""
    raised: bool = False
    """Whether code raised an error, be it the worker's own while it started."""


class Proposals(Searcher):
    """Asks the feed for trials, on behalf of Tune, while there is room for one more."""

    def __init__(self, feed: ProposalFeed, room: Callable[[], int]) -> None:
        super().__init__()
        self.feed = feed
        self.lost = Lost(0, "", False)
        """The trial that went wrong last."""
        self._room = room
        self._live: dict[str, dict[str, Any]] = {}
        self._again: list[dict[str, Any]] = []
        self._tries: Counter[int] = Counter()
        self._stuck: float | None = None  # since when no worker has started
        self._paused = float("-inf")

    @_through_tune()
    def suggest(self, trial_id: str) -> Any:
        if len(self._live) >= self._room() or time.monotonic() < self._paused:
            return None
        config = self._again.pop() if self._again else self._proposed()
        if config is None:
            return None if self._live else Searcher.FINISHED
        self._live[trial_id] = config
        return config

    def began(self) -> None:
        """Take note that a worker is at work."""
        self._stuck = None

    @_through_tune()
    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        config = self._live.pop(trial_id, None)
        if not error:
            return
        # Tune tries again what had begun, nothing else.
        if config is not None and not self.lost.begun and self._tries_again():
            self._again.append(config)
        else:
            self.feed.finish(self.lost.number, 0.0, self.lost.reason)

    def _tries_again(self) -> bool:
        """Return whether a trial that never began has another try: for nothing, if for a while."""
        now = time.monotonic()
        if not self.lost.raised:
            self._paused = now + PAUSE
            self._stuck = now if self._stuck is None else self._stuck
            if now - self._stuck < START_SECONDS:
                return True
        self._tries[self.lost.number] += 1
        return self._tries[self.lost.number] <= RETRIES

    def _proposed(self) -> dict[str, Any] | None:
        proposal = self.feed.next()
        if proposal is None:
            return None
        # As pairs: Tune would flatten, merge and copy a mapping key by key.
        return {"number": proposal.number, "allocation": proposal.allocation.entries}


class _Watching(tune.Callback):
    """Ends a run whose cluster is gone, on behalf of Tune."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    @_through_tune()
    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._watch.check()


class _Reports(FIFOScheduler):
    """Reports to the feed, on behalf of Tune, and tells Tune whether the trial goes on."""

    def __init__(self, proposals: Proposals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proposals = proposals

    @_through_tune()
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._proposals.began()
        feed, number = self._proposals.feed, trial.config["number"]
        ended = any(pass_on(feed, number, report) for report in result["reports"])
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = trial.get_pickled_error()
        died = error is None or isinstance(error, RayActorError)
        raised = not died or "creation task" in str(error)
        begun = trial.status == Trial.RUNNING
        self._proposals.lost = Lost(trial.config["number"], _reason(trial), begun, raised)


def _reason(trial: Trial) -> str:
    """Return why a trial failed; of a node that died Tune keeps a text alone, or nothing."""
    if (error := trial.get_pickled_error()) is not None:
        return f"{type(error).__name__}: {error}"
    lines = str(trial.get_error() or "").strip().splitlines()
    return lines[-1] if lines else "ActorDiedError: its worker was lost"
