"""Workers of a Ray cluster. The one door to Ray.

Ray Tune starts the workers, keeps them busy and replaces the lost ones. The feed decides what is
tried and when a trial stops.
"""

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import cloudpickle, tune
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,  # as `ray start` does when it joins a cluster
)
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from igq import InvalidArgumentError
from igq.progress import Progress
from pipeline.cluster.base import pass_on
from pipeline.cluster.evaluator import Evaluator
from pipeline.cluster.feed import ProposalFeed
from pipeline.cluster.process import own_signals, quiet, short_folder
from pipeline.cluster.ray_parts import parts_on_ray
from pipeline.errors import ClusterError
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Part

CONNECT_SECONDS = 10  # within which the machine at a cluster's address must answer
RETRIES = 2  # of a trial whose worker was lost
NO_TOKEN = (
    "it wants a token that this process does not have. Copy the head's ~/.ray/auth_token to the "
    "same place here."
)
_TOKEN = re.compile("authenticat|auth token|token auth|AUTH_TOKEN", re.IGNORECASE)
RULE = "`cluster` must be the address of a running Ray cluster"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change to come
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when it is to be silent
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own returns as if the study had ended
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever resumed from Tune's snapshots
}  # settings that Ray takes in no other way
Share = Mapping[str, float]  # the part of a machine that a worker takes: {"cpu": ..., "gpu": ...}


@dataclass(frozen=True)
class RayCluster:
    """Workers that Ray Tune keeps busy, each of them a process with a share of a machine.

    >>> RayCluster(workers=4).address is None  # Ray is started on this machine
    True
    """

    address: str | None = None
    """None: start Ray on this machine. Otherwise join: `auto`, the cluster that this machine is
    part of, or the `host:port` of its head."""
    workers: int = 2
    """How many trials run at once."""
    gpus_per_worker: float | None = None
    """Fractions share a GPU. None: one GPU each where the cluster has any, otherwise none."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InvalidArgumentError(f"`workers` must be at least 1, but got {self.workers}.")
        gpus = self.gpus_per_worker or 0
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise InvalidArgumentError(f"`gpus_per_worker` must be whole above 1, but got {gpus}.")

    def check(self) -> None:
        """Join the cluster and leave it again; one that `run` starts here needs no check."""
        if self.address is not None:
            with _connected(self.address):
                pass

    @property
    def count(self) -> int:
        """How many parts of work are computed at once."""
        return self.workers

    @property
    def where(self) -> str:
        """The workers, in words."""
        return f"{self.workers} worker{'s' * (self.workers > 1)} of Ray"

    def map(
        self, shared: Any, parts: Sequence[Part], progress: Progress
    ) -> Iterator[tuple[Part, Any]]:
        """Yield each part with its result as it ends; a part whose worker died runs again."""
        with _connected(self.address, len(cloudpickle.dumps(shared))):
            share = dict(self._share())
            yield from parts_on_ray(shared, parts, self.workers, share, progress)

    def _share(self) -> Share:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
        return _share(machines, self.workers, self.gpus_per_worker)

    def run(self, task: Task, feed: ProposalFeed) -> None:
        """Evaluate proposals, `workers` at a time, until there are no more."""
        with _connected(self.address, len(cloudpickle.dumps(task))):
            share = self._share()
            try:
                _tune(task, feed, self.workers, share)
            except _FeedError as error:
                raise error.args[0] from None


class IgqTrial(tune.Trainable):
    """A worker: one step is one chunk. Tune hands it one trial after the other."""

    def setup(self, config: dict[str, Any], task: Task, share: Share) -> None:  # type: ignore[override]
        torch.set_num_threads(max(1, int(share["cpu"])))
        self._evaluator = Evaluator(task, "cuda" if share["gpu"] else "cpu")
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports = self._evaluator.reports(dict(new_config["allocation"]))
        return True

    def step(self) -> dict[str, Any]:
        return {"report": next(self._reports)}


class _FeedError(BaseException):
    """An error of the feed on its way through Tune, which swallows or wraps any `Exception`."""


@contextmanager
def _through_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _FeedError(error) from error


class _Proposals(Searcher):
    """Asks the feed for trials, on behalf of Tune."""

    def __init__(self, feed: ProposalFeed) -> None:
        super().__init__()
        self.feed = feed
        self.lost = (0, "")  # the trial that last lost a worker, and how: Tune does not pass it on

    @_through_tune()
    def suggest(self, trial_id: str) -> Any:
        proposal = self.feed.next()
        if proposal is None:
            return Searcher.FINISHED
        # As pairs: Tune would flatten, merge and copy a mapping key by key.
        return {"number": proposal.number, "allocation": proposal.allocation.entries}

    @_through_tune()
    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        if error:
            number, reason = self.lost
            self.feed.finish(number, 0.0, reason)


class _Reports(FIFOScheduler):
    """Reports to the feed, on behalf of Tune, and tells Tune whether the trial goes on."""

    def __init__(self, proposals: _Proposals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proposals = proposals

    @_through_tune()
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        ended = pass_on(self._proposals.feed, trial.config["number"], result["report"])
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        self._proposals.lost = (trial.config["number"], f"{type(error).__name__}: {error}")


def _tune(task: Task, feed: ProposalFeed, workers: int, share: Share) -> None:
    """Run trials on the connected cluster until the feed has no more."""
    proposals = _Proposals(feed)
    with tempfile.TemporaryDirectory(prefix="igq-") as folder:
        tune.run(
            tune.with_parameters(IgqTrial, task=task, share=share),
            num_samples=-1,
            search_alg=proposals,
            scheduler=_Reports(proposals),
            max_concurrent_trials=workers,
            resources_per_trial=share,
            reuse_actors=True,
            max_failures=RETRIES,
            raise_on_failed_trial=False,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            trial_dirname_creator=lambda trial: trial.trial_id,  # its own is as long as the config
            storage_path=folder,
            verbose=0,
        )


def _share(machines: list[tuple[float, float]], workers: int, gpus: float | None) -> Share:
    """Return the most CPUs that each worker can have of machines (CPUs, GPUs) if all run at once.

    >>> _share([(8.0, 2.0), (2.0, 0.0)], workers=3, gpus=0.5)
    {'cpu': 2.0, 'gpu': 0.5}
    """
    most = max((machine_gpus for _, machine_gpus in machines), default=0.0)
    gpus = min(most, 1.0) if gpus is None else gpus
    if gpus > most:
        rule = "`gpus_per_worker` must be at most the GPUs of one machine of the cluster"
        raise ClusterError(f"{rule}, {most:g}, but got {gpus:g}.")
    rooms = [(cpus, int(found / gpus) if gpus else workers) for cpus, found in machines]
    wanted = min(workers, sum(room for _, room in rooms))
    options = {_whole(cpus / n) for cpus, _ in rooms for n in range(1, workers + 1)} - {0.0}
    for cpus in sorted(options, reverse=True):
        if sum(min(int(total / cpus), room) for total, room in rooms) >= wanted:
            return {"cpu": cpus, "gpu": gpus}
    raise ClusterError(f"a cluster must have CPUs for {wanted} workers, but has none.")


def _whole(cpus: float) -> float:
    """Return an amount that Ray takes: whole above 1, at most four decimals below."""
    return float(int(cpus)) if cpus >= 1 else int(cpus * 1e4) / 1e4


@contextmanager
def _connected(address: str | None, size: int = 0) -> Iterator[None]:
    """Join a cluster and leave it afterwards, or start Ray here and stop it afterwards.

    Ray that is started here has room for objects of `size` bytes.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        if address is None:
            room = {"object_store_memory": 2 * size + 2**27, "_temp_dir": short_folder()}
            _init("local", include_dashboard=False, **room)
        else:
            if address != "auto":
                _check_answers(address)
            _init(address)
        yield
    finally:
        ray.shutdown()


def _open_to_all(address: str) -> bool:
    """Return whether a cluster answers without a token.

    With a token such a cluster is joined, but takes the driver for dead: it cannot call it back.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    open_mode = os.environ | {"RAY_AUTH_MODE": "disabled"}
    try:
        run = subprocess.run(command, env=open_mode, capture_output=True, timeout=CONNECT_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def _init(address: str, **options: Any) -> None:
    """Initialise Ray without a word on the terminal; signals stay the command's."""
    said: list[str] = []
    try:
        with own_signals(), quiet(said):
            if address != "local" and not _open_to_all(address):
                maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        if _TOKEN.search(f"{reason} {''.join(said)}"):
            reason = NO_TOKEN
        raise ClusterError(f"{RULE}, but got {address}: {reason}") from error


def _check_answers(address: str) -> None:
    """Check that something listens at the address: Ray itself would take minutes to give up."""
    if address.startswith("ray://"):
        raise ClusterError(f"{RULE}, but got {address}: use `ray job submit`.")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"{RULE}, but got {address}: no answer.") from error
