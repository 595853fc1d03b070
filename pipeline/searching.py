"""A search from beginning to end: the place where all parts are put together.

Whatever can be refused is refused first, before anything is written; then what every trial shares
is computed, trials run, and the best is compared with its rivals on images of their own.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES
from pathlib import Path

import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import nn

from igq import Layer
from igq.vit import Execution
from pipeline.budget import Budgets, around
from pipeline.calibrating import Calibration
from pipeline.cluster import Cluster
from pipeline.concluding import Result, conclude, found_best
from pipeline.config import (
    Definition,
    Folder,
    Request,
    check_folder,
    check_same,
    unwritable,
    write_definition,
)
from pipeline.data import Images, Preprocessing, Source, draw, open_source
from pipeline.driver import Driver
from pipeline.errors import DataError, StudyError
from pipeline.execution import execution
from pipeline.files import read_json
from pipeline.preparation import (
    Preparation,
    baselines,
    costs,
    front_baselines,
    load_model,
    prepare,
)
from pipeline.proposals import Proposals
from pipeline.rivals import run_rivals
from pipeline.screen import Screen
from pipeline.study import Trial
from pipeline.tracking import StudyRun, Tracker

CALIBRATION, SEARCH, VALIDATION, FINAL = "calibration", "search", "validation", "final"


def search(request: Request, cluster: Cluster, tracker: Tracker, screen: Screen) -> Result:
    """Find the allocation of least KL within the budget; everything is kept in `request.out`.

    Raises:
        IgqError: anything that the request gets wrong, before any work starts.
        KeyboardInterrupt: the search was interrupted; it can be resumed.
    """
    space, folder = request.space, Folder(request.out)
    check_folder(folder, request.resume)
    if folder.lock.exists():
        _locked(folder).release()  # refuses a second driver before it reads images
    model, key = load_model(space, request.weights)
    model = model.to(_device())
    listed, _, budget = costs(space, model)
    sources = _sources(request, model)
    cluster.check()
    images = draw(sources, request.seed, screen.step("reading images"))
    definition = _definition(request, key, images, _execution(request, model, listed))
    if request.resume:
        check_same(folder, definition)
    with _exclusive(folder, request.resume):
        tracker.start(_study_run(definition, budget, folder))
        write_definition(folder, definition)
        try:
            calibration = Calibration(
                folder, space, definition.model, images[CALIBRATION].fingerprint
            )
            preparation = prepare(
                calibration,
                model,
                images[CALIBRATION],
                images[SEARCH],
                screen.step,
                definition.execution,
            )
            trials = _run_trials(request, preparation, cluster, tracker, screen)
            found = found_best(
                preparation, trials, None if request.front else images[FINAL], screen
            )
            rivals = []
            if request.rivals and not request.front:
                rivals = run_rivals(request, preparation, found.forwards, cluster, screen)
            return conclude(folder, preparation, found, rivals, images[VALIDATION], tracker, screen)
        except BaseException:
            tracker.interrupt()
            raise


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _exclusive(folder: Folder, resume: bool) -> Iterator[None]:
    """Hold the study's folder; what was made goes again if there is no study in the end."""
    missing = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        lock = _locked(folder)
    except StudyError:
        _remove(missing)
        raise
    try:
        check_folder(folder, resume)  # there may be one since it was checked first
        yield
    finally:
        if not folder.study.exists():
            folder.lock.unlink(missing_ok=True)
            _remove(missing)
        lock.release()


def _locked(folder: Folder) -> BaseFileLock:
    lock = FileLock(folder.lock, timeout=0)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StudyError(
            f"a study must have one driver, but another process has {folder.path} open."
        ) from None
    except OSError as error:
        raise unwritable(folder, error.errno or EACCES) from error
    return lock


def _remove(folders: Iterable[Path]) -> None:
    """Remove those that are there, innermost first, up to one that holds something."""
    with suppress(OSError):
        for path in folders:
            if path.exists():
                path.rmdir()


def _sources(request: Request, model: nn.Module) -> dict[str, tuple[Source, int, int]]:
    """Purpose -> source of its images, and the least and most to draw from it."""
    space, images = request.space, request.images or request.space.images
    if images is None:
        raise DataError("`images` must be given, as the search space names none; use --images DIR.")
    preprocessing = Preprocessing.of(model)
    names = {
        CALIBRATION: request.calibration or images,
        SEARCH: images,
        VALIDATION: request.validation or images,
        FINAL: images,
    }
    opened = {name: open_source(name, preprocessing) for name in set(names.values())}
    counts = {
        CALIBRATION: (space.calibration_images, space.calibration_images),
        SEARCH: (space.search_images, space.search_images),
        VALIDATION: (2, max(2, space.validation_images)),  # a standard error needs two
        FINAL: (0, 0 if request.front else space.final_images),
    }
    return {purpose: (opened[names[purpose]], *counts[purpose]) for purpose in names}


def _execution(request: Request, model: nn.Module, listed: tuple[Layer, ...]) -> Execution:
    """How trials are computed; a resumed study goes on as it began."""
    if request.resume:
        return Execution(**read_json(Folder(request.out).study).get("execution", {}))
    images = request.num_trials * request.space.search_images
    return execution(request.engine, listed, images, next(model.parameters()).device)


def _definition(
    request: Request, model: str, images: dict[str, Images], execution: Execution
) -> Definition:
    weights = request.weights or request.space.weights
    return Definition(
        space=request.space,
        weights=str(Path(weights).absolute()) if weights else "",
        model=model,
        images={purpose: drawn.fingerprint for purpose, drawn in images.items()},
        sources={purpose: drawn.source for purpose, drawn in images.items()},
        seed=request.seed,
        sampler=request.sampler,
        execution=execution,
        front=request.front,
    )


def _study_run(definition: Definition, budget: int, folder: Folder) -> StudyRun:
    space = definition.space
    return StudyRun(
        name=space.name,
        key=definition.key,
        budget=budget,
        params={
            "model": space.model.name,
            "weights": definition.weights or "pretrained",
            "weight_bits": str(space.weight_bits),
            "activation_bits": str(space.activation_bits),
            "num_groups": str(list(space.num_groups)),
            "budget": str(space.budget),
            **({"max_size": str(space.max_size)} if space.max_size else {}),
            "seed": definition.seed,
            "sampler": definition.sampler.value,
            "compiled": definition.execution.compiled,
            "bfloat16": definition.execution.bfloat16,
            "front": str(definition.front),
            **{f"{purpose}_images": source for purpose, source in definition.sources.items()},
            "folder": str(folder.path.absolute()),
        },
    )


def _run_trials(
    request: Request,
    preparation: Preparation,
    cluster: Cluster,
    tracker: Tracker,
    screen: Screen,
) -> tuple[Trial, ...]:
    budgets = Budgets(preparation.budget, preparation.budget)
    first = baselines(preparation, request.num_trials, request.seed)
    if request.front:
        budgets = around(preparation.budget, preparation.bops)
        first = front_baselines(preparation, budgets, request.num_trials)
    proposals = Proposals(
        Folder(request.out).journal,
        request.space.name,
        preparation.bops,
        budgets,
        first,
        request.sampler,
        request.seed,
    )
    driver = Driver(
        proposals,
        tracker,
        trials=request.num_trials,
        images=len(preparation.task.images),
        budget=budgets.high,
        listen=screen.trials,
    )
    cluster.run(preparation.task, driver)
    return driver.snapshot.ended
