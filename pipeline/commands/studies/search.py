"""A search from beginning to end: the place where all parts are put together.

Whatever can be refused is refused first, before anything is written; then what every trial shares
is computed, trials run, and the best is compared with its rivals on images of their own.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Unpack
from uuid import uuid4

from rich.console import Console

from pipeline.cluster import Cluster, InProcess
from pipeline.commands.machine.cache import shared_folder
from pipeline.commands.machine.surroundings import surroundings
from pipeline.commands.studies.driving import Driving
from pipeline.commands.studies.result import Result
from pipeline.files import write_json
from pipeline.forecast.resources import check_memory, check_model, memory_taken, resources_of
from pipeline.forecast.work import Work
from pipeline.preparation.models import device
from pipeline.preparation.prepare import Preparation, prepare
from pipeline.preparation.purposes import SEARCH
from pipeline.preparation.sealing import seal_old
from pipeline.preparation.starts import baselines, front_baselines
from pipeline.preparation.study import Study, parameters_of
from pipeline.proposals import Proposals
from pipeline.reports.progress import TerminalDisplay
from pipeline.reports.sentences import title
from pipeline.searching.driver import Driver, Plan
from pipeline.searching.result import choose, conclude
from pipeline.searching.rivals import run_rivals
from pipeline.study.budgets import BudgetSchedule
from pipeline.study.definition import Definition
from pipeline.study.folder import exclusive
from pipeline.study.progress import Display
from pipeline.study.request import Request, Wishes
from pipeline.study.seals import write_sealed
from pipeline.study.trials import Trial
from pipeline.tracking import Input, StudyRun, Tracker, sqlite_uri
from pipeline.tracking.patient import PatientTracker
from pipeline.tracking.uris import noted
from search_spaces import SearchSpace, load

BEGUN = ("processor", "torch")
"""Names of all that the sums of a study depend on, beside its definition."""
NONCE = 12
"""Digits that tell a study from others with the same definition."""


def search(
    space: str | Path | SearchSpace,
    out: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    cluster: Cluster | str | None = None,
    workers: int | None = None,
    tracking: Tracker | str | None = None,
    display: Display | None = None,
    **wishes: Unpack[Wishes],
) -> Result:
    """Find the allocation of least KL within the budget of a search space.

    Args:
        space: a bundled space, the path of a YAML file, or a space.
        out: the study's folder, by default studies/SPACE.
        weights: a local file, by default the space's or the pretrained ones of timm's hub.
        cluster: where trials run: `auto` or the address of a Ray cluster, or a cluster. By default
            this process, or with several workers Ray on this machine.
        workers: how many trials run at once; by default as many as a Ray cluster has room for.
        tracking: the URI of an MLflow server or store, or a tracker; by default a store in the
            study's folder.
        display: shows the progress; by default bars in a terminal or notebook.
        **wishes: other fields of `pipeline.Request`: `images`, `trials`, `seed`, `resume` and more.

    Raises:
        IgqError: anything that the request gets wrong, before any work starts.
        KeyboardInterrupt: the search was interrupted; it can be resumed.

    >>> import pipeline
    >>> tracking = pipeline.InMemoryTracker()
    >>> fast = {"trials": 4, "rivals": False, "figures": False}
    >>> result = pipeline.search("demo", tracking=tracking, resume=True, **fast)
    ... # doctest: +ELLIPSIS
    reading images ...
    >>> len(result.trials)
    4
    """
    loaded = space if isinstance(space, SearchSpace) else load(space)
    folder = Path(out) if out else Path("studies") / loaded.name
    request = Request(loaded, folder, Path(weights) if weights else None, **wishes)
    shown = TerminalDisplay(Console()) if display is None else nullcontext(display)
    with shown as watched:
        return run(request, _cluster(cluster, workers), _tracker(tracking, request.out), watched)


def run(request: Request, cluster: Cluster, tracker: Tracker, display: Display) -> Result:
    """Run the search that a request describes; everything is kept in `request.out`.

    Raises:
        IgqError: anything that the request gets wrong, before any work starts.
        KeyboardInterrupt: the search was interrupted; it can be resumed.

    >>> import pipeline, search_spaces
    >>> from pipeline.study.progress import SilentDisplay
    >>> request = pipeline.Request(search_spaces.load("demo"), Path("studies/demo"), trials=5,
    ...                            rivals=False, figures=False, resume=True)
    >>> result = run(request, pipeline.InProcess(), pipeline.InMemoryTracker(), SilentDisplay())
    >>> len(result.trials)
    5
    """
    base = memory_taken()
    check_model(request.space)
    study = Study.create(request, display, cluster.check, shared_folder())
    cluster = _held(study, request, cluster, base)
    tracker = PatientTracker(tracker, display.warn, str(request.out))
    with exclusive(study.folder, request.resume):
        system = surroundings()
        study = _begun(study, system, request.resume, display)
        tracker.start(study_run(study, system))
        nonce = uuid4().hex[:NONCE]
        seal_old(study, nonce)
        study.definition.write(study.folder, nonce)
        write_sealed(study.folder.system, system)
        write_json(study.folder.driver, Driving.here(request.num_trials).json())
        write_sealed(study.folder.tracking, noted(tracker.location, study.folder.path))
        try:
            preparation = prepare(study, display, cluster)
            trials = _run_trials(request, preparation, cluster, tracker, display)
            found = choose(preparation, trials, display, cluster)
            rivals = []
            if request.rivals and not request.front:
                rivals = run_rivals(request, preparation, found.passes, cluster, display)
            conclude(preparation, found, rivals, tracker, display, request.figures, cluster)
        except BaseException:
            tracker.interrupt()
            raise
    return Result.of(study)


def _held(study: Study, request: Request, cluster: Cluster, base: int) -> Cluster:
    """Return the cluster with as many workers as memory holds; refuse where it holds too few."""
    counts = {purpose: len(images) for purpose, images in study.images.items()}
    work = Work(request, study.model, study.layers, study.limits, counts)
    image = study.images[SEARCH].loaded()[:1].nbytes
    needed = resources_of(work, parameters_of(study.model), image, base)
    check_memory(needed, cluster.workers_here)
    return cluster.holding(needed.of_workers, needed.for_workers)


def _begun(study: Study, system: Mapping[str, str], resume: bool, display: Display) -> Study:
    """Note where a study begins; say of one that goes on where it was begun, if not here."""
    here = {name: system[name] for name in BEGUN}
    if not resume:
        return replace(study, definition=replace(study.definition, begun=here))
    before = study.definition.begun
    other = [
        f"{name} {before[name]} then, {here[name]} now"
        for name in before.keys() & here.keys()
        if before[name] != here[name]
    ]
    if other:
        display.warn(
            f"the study was begun elsewhere: {', '.join(sorted(other))}. What it computed then is "
            "used again; new numbers may differ from it in their last digits, and where it is "
            "begun anew so may all of them."
        )
    return study


def _cluster(cluster: Cluster | str | None, workers: int | None) -> Cluster:
    if cluster is None and workers in (None, 1):
        return InProcess(device())
    if cluster is None or isinstance(cluster, str):
        from pipeline.cluster.ray import RayCluster  # Ray takes seconds to load

        return RayCluster(cluster, workers)
    return cluster


def _tracker(tracking: Tracker | str | None, out: Path) -> Tracker:
    if tracking is None or isinstance(tracking, str):
        from pipeline.tracking.mlflow import MlflowTracker  # MLflow takes seconds to load

        return MlflowTracker(tracking or sqlite_uri(out))
    return tracking


def study_run(study: Study, system: Mapping[str, str]) -> StudyRun:
    """Return the study as its run in MLflow shows it."""
    definition, space = study.definition, study.space
    return StudyRun(
        name=title(definition),
        key=definition.key,
        budget=study.budget,
        limits={limit.table.unit: limit.most for limit in study.limits.bounded},
        inputs=[
            Input(purpose, images.source, images.fingerprint, len(images))
            for purpose, images in study.images.items()
            if len(images)
        ],
        system=system,
        budget_name=f"budget_{study.limits.table.unit}",
        params={
            "space": space.name,
            "model": space.model.name,
            "weights": definition.weights or "pretrained",
            "weight_bits": str(space.weight_bits),
            "activation_bits": str(space.activation_bits),
            "num_groups": str(list(space.num_groups)),
            "budget": str(space.budget),
            **({"max_bops": str(space.max_bops)} if space.max_bops else {}),
            **({"max_size": str(space.max_size)} if space.max_size else {}),
            **_run_params(definition),
            "folder": str(study.folder.path.absolute()),
        },
    )


def _run_params(definition: Definition) -> dict[str, str | int]:
    return {
        "seed": definition.seed,
        "sampler": definition.sampler.value,
        "compiled": definition.execution.compiled,
        "bfloat16": definition.execution.bfloat16,
        "front": str(definition.front),
        **{f"{purpose}_images": source for purpose, source in definition.sources.items()},
    }


def _run_trials(
    request: Request,
    preparation: Preparation,
    cluster: Cluster,
    tracker: Tracker,
    display: Display,
) -> tuple[Trial, ...]:
    schedule = BudgetSchedule(preparation.budget, preparation.budget)
    first = baselines(preparation, request.num_trials, request.seed)
    if request.front:
        schedule = BudgetSchedule.around(preparation.limits)
        first = front_baselines(preparation, schedule, request.num_trials)
    proposals = Proposals(
        preparation.study.folder.journal,
        request.space.name,
        preparation.limits,
        schedule,
        first,
        request.sampler,
        request.seed,
    )
    plan = Plan(request.num_trials, len(preparation.task.images), schedule.high)
    driver = Driver(proposals, tracker, plan, display)
    cluster.run(preparation.task, driver)
    if len(nodes := driver.snapshot.nodes) > 1:
        display.say(f"Trials ran on {', '.join(f'{name} ({n})' for name, n in nodes.items())}.")
    return driver.snapshot.ended
