"""The contract of every cluster, on the double and on Ray; then Ray's own behaviour."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import ray
import torch

import igq
from igq import Observation, Unit
from igq.evaluation import log_probabilities
from igq.quantized import quantize_weights
from pipeline.cluster import Cluster, InProcess
from pipeline.cluster.batches import Batch, Pace
from pipeline.cluster.placement import WorkerMemory
from pipeline.cluster.ray import RETRIES, RayCluster, tuning
from pipeline.cluster.ray.joining import connected
from pipeline.cluster.ray.nodes import check_nodes, machines
from pipeline.commands.studies.plan import Means, workers_of
from pipeline.errors import ClusterError
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.study.trials import Origin, Proposal
from pipeline.threads import PATIENT
from pipeline.versions import versions
from tests import clusters, tiny
from tests.clusters import THIS_CHECKOUT, Head, descendants, processes
from tests.makers import FITTED

TINY = tiny.TINY | {"depth": 1}
GROUPS = (2, 4)


def make_task(images: int = 7, chunk_size: int = 2) -> Task:
    torch.manual_seed(0)
    model = igq.create("vit_tiny_patch16_224", TINY).eval()
    inputs = torch.randn(images, 1, 8, 8)
    candidates = igq.fit(igq.observe(model, inputs[:8], FITTED), num_groups=GROUPS, bits=4)
    weights = {4: quantize_weights(model, 4)}
    reference = log_probabilities(model, inputs)
    return Task(model, weights, candidates, inputs, reference, chunk_size)


def allocations(task: Task) -> list[igq.Allocation]:
    """Uniform ones, and those with one layer set otherwise."""
    names = [layer.name for layer in task.candidates.layers if layer.grouped]
    uniform = [dict.fromkeys(names, groups) for groups in GROUPS]
    varied = [uniform[0] | {name: GROUPS[1]} for name in names]
    return [igq.Allocation.of(num_groups) for num_groups in uniform + varied]


LONG = 900
"""Images of a trial that takes several messages of its worker, each half a second of work."""


@dataclass
class FakeFeed:
    """Proposes a list, records every call, and stops a trial after the chunk named for it."""

    allocations: Sequence[igq.Allocation]
    stop_after: dict[int, int] = field(default_factory=dict)
    on_report: Callable[[], None] = lambda: None
    proposed: int = 0
    reports: dict[int, list[tuple[int, list[float]]]] = field(default_factory=dict)
    finished: list[tuple[int, str | None]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    threads: set[tuple[int, int]] = field(default_factory=set)

    @property
    def left(self) -> int:
        self._note()
        return len(self.allocations) - self.proposed

    def next(self) -> Proposal | None:
        self._note()
        if self.proposed == len(self.allocations):
            return None
        self.proposed += 1
        number = self.proposed - 1
        return Proposal(number, Origin.RANDOM, self.allocations[number], {Unit.BOPS: 1})

    def report(self, number: int, chunk: int, observation: Observation) -> bool:
        self._note()
        assert number not in dict(self.finished), "a report after the end"
        self.reports.setdefault(number, []).append((chunk, list(observation.kls)))
        self.on_report()
        return self.stop_after.get(number) == chunk

    def finish(self, number: int, seconds: float, error: str | None = None, node: str = "") -> None:
        self._note()
        self.finished.append((number, error))
        self.seconds.append(seconds)
        self.nodes.add(node)

    def _note(self) -> None:
        self.threads.add((os.getpid(), threading.get_ident()))


def expected(task: Task, allocation: igq.Allocation) -> list[tuple[int, list[float]]]:
    return [(i, list(seen.kls)) for i, seen in enumerate(Objective(task).evaluate(allocation))]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A Ray cluster to join: what all but one of the tests run on."""
    with clusters.head(tmp_path_factory.mktemp("ray") / "log", cpus=1) as made:
        yield made


@pytest.fixture(scope="module", params=["in process", pytest.param("ray", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "in process":
        return InProcess()
    return RayCluster(request.getfixturevalue("head").address, workers=2)


@dataclass(frozen=True)
class Run:
    task: Task
    feed: FakeFeed


BROKEN, STOPPED = 1, 3


@pytest.fixture(scope="module")
def run(cluster: Cluster) -> Run:
    """A study with everything in it: good trials, one that raises, one that is told to stop."""
    task = make_task()
    proposals = allocations(task)
    proposals.insert(BROKEN, igq.Allocation.of(dict.fromkeys(proposals[0], 3)))
    feed = FakeFeed(proposals, stop_after={STOPPED: 1})
    cluster.run(task, feed)
    return Run(task, feed)


def test_every_proposal_is_finished_once(run: Run) -> None:
    numbers = sorted(number for number, _ in run.feed.finished)
    assert numbers == list(range(len(run.feed.allocations)))
    assert all(seconds >= 0 for seconds in run.feed.seconds)


def test_every_chunk_is_reported_as_the_objective_has_it(run: Run) -> None:
    for number, allocation in enumerate(run.feed.allocations):
        if number in (BROKEN, STOPPED):
            continue
        seen, wanted = run.feed.reports[number], expected(run.task, allocation)
        assert [chunk for chunk, _ in seen] == [0, 1, 2, 3]
        assert [len(kls) for _, kls in seen] == [2, 2, 2, 1]
        for (_, kls), (_, truth) in zip(seen, wanted, strict=True):
            assert kls == pytest.approx(truth, rel=1e-6)


def test_every_trial_says_where_it_ran(run: Run) -> None:
    assert run.feed.nodes == {socket.gethostname()}


def test_a_trial_told_to_stop_reports_no_more(run: Run) -> None:
    assert [chunk for chunk, _ in run.feed.reports[STOPPED]] == [0, 1]
    assert (STOPPED, None) in run.feed.finished


def test_an_error_is_the_end_of_its_trial_alone(run: Run) -> None:
    errors = {number: error for number, error in run.feed.finished if error}
    assert list(errors) == [BROKEN]
    assert errors[BROKEN].startswith("InvalidArgumentError: `num_groups` must be one of [2, 4]")
    assert BROKEN not in run.feed.reports


def test_the_feed_is_called_from_the_callers_thread(run: Run) -> None:
    assert run.feed.threads == {(os.getpid(), threading.get_ident())}


def test_a_study_without_proposals_ends(cluster: Cluster) -> None:
    feed = FakeFeed([])
    cluster.run(make_task(), feed)
    assert feed.finished == []


def test_an_error_of_the_feed_reaches_the_caller(cluster: Cluster) -> None:
    def fail() -> None:
        raise LookupError("no such trial")

    task = make_task()
    with pytest.raises(LookupError, match="no such trial"):
        cluster.run(task, FakeFeed(allocations(task), on_report=fail))


@pytest.mark.ray
def test_killed_workers_lose_nothing(head: Head) -> None:
    task = make_task(images=LONG, chunk_size=1)
    feed = FakeFeed(allocations(task)[:3])
    killed: list[int] = []

    def kill_all() -> None:
        """All that are there, one of them in the middle of a trial: the others may just start."""
        if not killed and sum(map(len, feed.reports.values())) == 20:
            killed.extend(worker.pid for worker in head.workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    feed.on_report = kill_all
    RayCluster(head.address, workers=2).run(task, feed)

    assert killed
    assert sorted(feed.finished) == [(0, None), (1, None), (2, None)]
    assert max(len(reports) for reports in feed.reports.values()) > LONG  # one began again
    for number, allocation in enumerate(feed.allocations):
        last = dict(feed.reports[number])
        wanted = dict(expected(task, allocation))
        assert last.keys() == wanted.keys()
        assert all(last[chunk] == pytest.approx(wanted[chunk], rel=1e-6) for chunk in wanted)


@pytest.mark.ray
def test_a_worker_killed_in_mid_batch_loses_nothing(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches grow; the last one is killed after its first message, of more than one."""
    monkeypatch.setattr(Pace, "batch", lambda pace, left, workers: max(1, min(pace.ended, left)))
    sent: list[int] = []
    monkeypatch.setattr(tuning, "Batch", lambda some: sent.append(len(some)) or Batch(some))
    chunks = LONG // 2
    task = make_task(images=chunks, chunk_size=1)
    feed = FakeFeed(allocations(task)[:4] * 4)
    killed: list[int] = []

    def kill() -> None:
        if len(sent) == 5 and not killed:
            killed.extend(worker.pid for worker in head.workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    feed.on_report = kill
    RayCluster(head.address, workers=1).run(task, feed)

    assert killed
    assert sent[:5] == [1, 1, 2, 4, 8]
    assert set(sent[5:]) == {1}  # what was left of the batch
    assert sorted(feed.finished) == [(number, None) for number in range(16)]
    chunks_seen = [len(reports) for reports in feed.reports.values()]
    assert sum(seen > chunks for seen in chunks_seen) <= 1  # the one in which the message ended
    for number, reports in feed.reports.items():
        last, same = dict(reports), dict(feed.reports[number % 4])  # of the same allocation
        assert sorted(last) == list(range(chunks))
        assert all(last[chunk] == pytest.approx(same[chunk], rel=1e-6) for chunk in same)


@pytest.mark.ray
def test_a_trial_that_loses_every_worker_finishes_with_an_error(head: Head) -> None:
    task = make_task(images=LONG, chunk_size=1)
    feed = FakeFeed(allocations(task)[:1])
    killed: set[int] = set()

    def kill_each() -> None:
        for worker in head.workers():
            os.kill(worker.pid, signal.SIGKILL)
            killed.add(worker.pid)

    feed.on_report = kill_each
    RayCluster(head.address, workers=1).run(task, feed)

    assert len(killed) > RETRIES  # on a busy machine Ray may start one before it counts the last
    [(number, error)] = feed.finished
    assert number == 0
    assert error is not None
    assert error.startswith("ActorDiedError: ")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "no answer"),
        ("127.0.0.1", "no answer"),
        ("127.0.0.1:ray", "no answer"),
        ("ray://127.0.0.1:10001", "use `ray job submit`"),
    ],
)
def test_an_address_without_a_cluster_is_refused(
    address: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    task, start = make_task(), time.monotonic()
    feed = FakeFeed(allocations(task))
    with pytest.raises(ClusterError) as caught:
        RayCluster(address).run(task, feed)
    rule = "`cluster` must be the address of a running Ray cluster"
    assert str(caught.value) == f"{rule}, but got {address}: {reason}."
    assert time.monotonic() - start < 20
    assert feed.proposed == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.ray
def test_without_a_number_there_is_a_worker_for_each_core(head: Head) -> None:
    task = make_task()
    feed = FakeFeed(allocations(task)[:3])
    most: list[int] = []
    feed.on_report = lambda: most.append(len(head.workers()))
    memory = WorkerMemory(each=1e8, correcting=2e8)
    RayCluster(head.address).holding(memory, left=None).run(task, feed)
    assert max(most) == 1  # the cluster has one core
    assert len(feed.finished) == 3


@pytest.mark.ray
def test_a_number_of_workers_is_held_against_the_memory_of_a_cluster(head: Head) -> None:
    with connected(head.address):
        [there] = machines()
    cluster, half = RayCluster(head.address, workers=3), WorkerMemory(*[0.4 * there.memory] * 2)
    with pytest.raises(ClusterError, match=r"must hold 3 workers.* holds 2: take --workers 2"):
        cluster.holding(half, left=None)
    assert replace(cluster, workers=2).holding(half, left=None).memory == half


@pytest.mark.ray
def test_a_cluster_is_joined_once_to_place_workers(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str | None] = []

    @contextmanager
    def counted(address: str | None) -> Iterator[None]:
        joined.append(address)
        with connected(address):
            yield

    monkeypatch.setattr("pipeline.cluster.ray.connected", counted)
    found = workers_of(Means(cluster=head.address), WorkerMemory(each=1e8, correcting=1e8))
    assert (found.count, joined) == (1, [head.address])


@pytest.mark.ray
def test_threads_of_workers_that_wait_sleep(head: Head) -> None:
    with connected(head.address):
        asked = ray.remote(lambda: {name: os.environ.get(name) for name in PATIENT})
        found = ray.get(asked.remote())
    assert found == {name: os.environ.get(name, value) for name, value in PATIENT.items()}


@pytest.mark.ray
@pytest.mark.parametrize("package", ["igq", "torch"])
def test_a_node_with_another_version_is_refused_with_both(head: Head, package: str) -> None:
    mine = versions() | {package: "0.0.1"}
    with connected(head.address), pytest.raises(ClusterError) as caught:
        check_nodes(mine)
    host = socket.gethostname()
    assert str(caught.value) == (
        f"a cluster must have the driver's {package} 0.0.1 on every node, but {host} has "
        f"{versions()[package]}: install the same there, or leave the node out."
    )


@pytest.mark.ray
def test_gpus_that_no_machine_has_are_refused(head: Head) -> None:
    task = make_task()
    feed = FakeFeed(allocations(task))
    with pytest.raises(ClusterError, match=r"at most the GPUs of one machine .*, but got 64\."):
        RayCluster(head.address, gpus_per_worker=64.0).run(task, feed)
    assert feed.proposed == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "`workers` must be at least 1, but got 0."),
        (
            {"gpus_per_worker": 1.5},
            "`gpus_per_worker` must be whole above 1, but got 1.5.",
        ),
    ],
)
def test_impossible_workers_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(igq.InvalidArgumentError) as caught:
        RayCluster(**arguments)
    assert str(caught.value) == message


INTERRUPTED = """
import runpy, sys
from tests import tiny
contract = runpy.run_path({path!r})
def say():
    sys.stdout.write("reporting\\n")  # whole, whenever the interrupt comes
    sys.stdout.flush()
task = contract["make_task"](images=2000, chunk_size=1)
feed = contract["FakeFeed"](contract["allocations"](task), on_report=say)
try:
    contract["RayCluster"](workers=1).run(task, feed)
except KeyboardInterrupt:
    print("interrupted", feed.finished)
"""


@pytest.mark.ray
def test_one_interrupt_ends_a_run_and_ray_with_it() -> None:
    """As a terminal does it: the signal goes to every process of the group. Ray starts anew."""
    run = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(path=__file__)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | THIS_CHECKOUT,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "reporting\n"
    started = descendants(run.pid)
    assert any("raylet" in process.command for process in started)

    interrupted = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)

    assert time.monotonic() - interrupted < 15
    assert out.splitlines()[-1] == "interrupted []"
    assert err == ""
    time.sleep(2)
    assert not {process.pid for process in processes()} & {process.pid for process in started}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: trials on CUDA are not checked")
def test_trials_run_on_a_gpu() -> None:
    task = make_task()
    feed = FakeFeed(allocations(task))
    RayCluster(workers=1).run(task, feed)
    for number, allocation in enumerate(feed.allocations):
        for (_, kls), (_, truth) in zip(
            feed.reports[number], expected(task, allocation), strict=True
        ):
            assert kls == pytest.approx(truth, abs=1e-3)
