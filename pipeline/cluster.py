"""Where trials run: in this process, or on the workers of a Ray cluster. The one door to Ray.

Ray Tune starts the workers, keeps them busy and replaces the lost ones; what to try, when to stop
and what is best is the `Source`'s business.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ray
import torch
from ray import cloudpickle, tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from igq import InvalidArgumentError
from pipeline.errors import ClusterError
from pipeline.objective import Evaluator, Report, Task
from pipeline.study import Source

CONNECT_SECONDS = 10  # within which the machine at a cluster's address must answer
RETRIES = 2  # of a trial whose worker was lost
RULE = "`cluster` must be the address of a running Ray cluster"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change to come
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when it is to be silent
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own returns as if the study had ended
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # nothing is ever resumed from Tune's snapshots
}  # what Ray can be told in no other way
Share = Mapping[str, float]  # of a machine, what a worker takes: {"cpu": ..., "gpu": ...}


@runtime_checkable
class Cluster(Protocol):
    """Evaluates what a source proposes."""

    def check(self) -> None:
        """Refuse, before any work, what `run` could not reach.

        Raises:
            ClusterError: the workers cannot be reached.
        """

    def run(self, task: Task, source: Source) -> None:
        """Evaluate proposals until there are no more; only this thread calls the source.

        A trial's error is its outcome; an error of the source ends the run and is raised here.

        Raises:
            ClusterError: the workers cannot be reached or started.
            KeyboardInterrupt: the run was interrupted; the trials under way never finish.
        """


@dataclass(frozen=True)
class InProcess:
    """One trial after the other, in this process and without Ray."""

    device: str = "cpu"

    def check(self) -> None:
        """There is nothing to reach."""

    def run(self, task: Task, source: Source) -> None:
        """Evaluate proposals one by one until there are no more."""
        evaluator = Evaluator(task, self.device)
        while (proposal := source.next()) is not None:
            for report in evaluator.reports(proposal.allocation):
                if _pass_on(source, proposal.number, report):
                    break


@dataclass(frozen=True)
class RayCluster:
    """Workers that Ray Tune keeps busy, each of them a process with a share of a machine."""

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

    def run(self, task: Task, source: Source) -> None:
        """Evaluate proposals, `workers` at a time, until there are no more."""
        with _connected(self.address, len(cloudpickle.dumps(task))):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            machines = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
            share = _share(machines, self.workers, self.gpus_per_worker)
            try:
                _tune(task, source, self.workers, share)
            except _SourceError as error:
                raise error.args[0] from None


def _pass_on(source: Source, number: int, report: Report) -> bool:
    """Hand a report to the source; whether the trial has ended with it."""
    seen = report.seen
    stop = report.error is None and source.report(number, report.chunk, seen.kls, seen.shifts)
    if stop or report.last:
        source.finish(number, report.seconds, report.error)
    return stop or report.last


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


class _SourceError(BaseException):
    """An error of the source on its way through Tune, which swallows or wraps any `Exception`."""


@contextmanager
def _through_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _SourceError(error) from error


class _Proposals(Searcher):
    """Tune's way to ask the source for trials."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.lost = (0, "")  # the trial that last lost a worker, and how: Tune does not pass it on

    @_through_tune()
    def suggest(self, trial_id: str) -> Any:
        proposal = self.source.next()
        if proposal is None:
            return Searcher.FINISHED
        # As pairs: Tune would flatten, merge and copy a mapping key by key.
        return {"number": proposal.number, "allocation": proposal.allocation.entries}

    @_through_tune()
    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        if error:
            number, reason = self.lost
            self.source.finish(number, 0.0, reason)


class _Reports(FIFOScheduler):
    """Tune's way to report to the source, and to hear whether the trial goes on."""

    def __init__(self, proposals: _Proposals) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._proposals = proposals

    @_through_tune()
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        ended = _pass_on(self._proposals.source, trial.config["number"], result["report"])
        return str(TrialScheduler.STOP if ended else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        self._proposals.lost = (trial.config["number"], f"{type(error).__name__}: {error}")


def _tune(task: Task, source: Source, workers: int, share: Share) -> None:
    """Run trials on the connected cluster until the source has no more."""
    proposals = _Proposals(source)
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
    """The most CPUs that each worker can have of machines (CPUs, GPUs), so that all run at once.

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
    """The amount that Ray takes: whole above 1, at most four decimals below."""
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
            _init("local", include_dashboard=False, object_store_memory=2 * size + 2**27)
        else:
            if address != "auto":
                _check_answers(address)
            _init(address)
        yield
    finally:
        ray.shutdown()


def _init(address: str, **options: Any) -> None:
    """Initialise Ray without a word on the terminal."""
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(f"{RULE}, but got {address}: {reason}") from error


def _check_answers(address: str) -> None:
    """See that something listens at the address: Ray itself would take minutes to give up."""
    if address.startswith("ray://"):
        raise ClusterError(f"{RULE}, but got {address}: use `ray job submit`.")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"{RULE}, but got {address}: no answer.") from error
