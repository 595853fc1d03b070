"""A search from beginning to end: the place where all parts are put together.

Whatever can be refused is refused first, before anything is written; then what every trial shares
is computed, trials run, and the best is compared with the baselines on images of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from igq import Layer
from igq.vit import Execution
from pipeline.cluster import Cluster
from pipeline.comparison import compare
from pipeline.config import (
    Definition,
    Folder,
    Request,
    check_folder,
    check_same,
    fingerprint,
    write_definition,
)
from pipeline.data import Images, Preprocessing, Source, draw, open_source
from pipeline.driver import Driver
from pipeline.errors import DataError, StudyError
from pipeline.execution import execution
from pipeline.files import read_json, write_json
from pipeline.preparation import Preparation, baselines, costs, load_model, prepare
from pipeline.proposals import Proposals
from pipeline.reports import write_figures
from pipeline.screen import Screen
from pipeline.study import Comparison, Origin, Trial, best, best_of
from pipeline.tracking import StudyRun, Tracker

CALIBRATION, SEARCH, VALIDATION = "calibration", "search", "validation"


@dataclass(frozen=True)
class Result:
    """What a search found."""

    folder: Folder
    trials: tuple[Trial, ...]
    best: Trial
    comparisons: tuple[Comparison, ...]
    validation_images: int
    reference_top1: float | None
    """Top-1 of the full-precision model on the validation images."""
    layers: tuple[Layer, ...]


def search(request: Request, cluster: Cluster, tracker: Tracker, screen: Screen) -> Result:
    """Find the allocation of least KL within the budget; everything is kept in `request.out`.

    Raises:
        IgqError: anything that the request gets wrong, before any work starts.
        KeyboardInterrupt: the search was interrupted; it can be resumed.
    """
    space, folder = request.space, Folder(request.out)
    with _exclusive(folder, request.resume):
        model = load_model(space, request.weights).to(_device())
        listed, _, budget = costs(space, model)
        sources = _sources(request, model)
        cluster.check()
        images = draw(sources, request.seed, screen.step("reading images"))
        definition = _definition(request, model, images, _execution(request, model, listed))
        if request.resume:
            check_same(folder, definition)
        tracker.start(_study_run(definition, budget, folder))
        write_definition(folder, definition)
        try:
            preparation = prepare(
                space,
                model,
                definition.model,
                images[CALIBRATION],
                images[SEARCH],
                folder,
                screen.step,
                definition.execution,
            )
            trials = _run_trials(request, preparation, cluster, tracker, screen)
            result = _conclude(request, preparation, trials, images[VALIDATION], screen)
            _report(result, preparation, images[VALIDATION], tracker)
        except BaseException:
            tracker.interrupt()
            raise
        return result


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _exclusive(folder: Folder, resume: bool) -> Iterator[None]:
    """Hold the study's folder; one that ends up without a study is removed again."""
    existed = folder.path.exists()
    check_folder(folder, resume)
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyError(
            f"a study must have one driver, but another process has {folder.path} open."
        ) from None
    try:
        yield
    finally:
        if not folder.study.exists():
            folder.lock.unlink(missing_ok=True)
            if not existed and not any(folder.path.iterdir()):
                folder.path.rmdir()
        lock.release()


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
    }
    opened = {name: open_source(name, preprocessing) for name in set(names.values())}
    counts = {
        CALIBRATION: (space.calibration_images, space.calibration_images),
        SEARCH: (space.search_images, space.search_images),
        VALIDATION: (2, max(2, space.validation_images)),  # a standard error needs two
    }
    return {purpose: (opened[names[purpose]], *counts[purpose]) for purpose in names}


def _execution(request: Request, model: nn.Module, listed: tuple[Layer, ...]) -> Execution:
    """How trials are computed; a resumed study goes on as it began."""
    if request.resume:
        return Execution(**read_json(Folder(request.out).study).get("execution", {}))
    images = request.num_trials * request.space.search_images
    return execution(request.engine, listed, images, next(model.parameters()).device)


def _definition(
    request: Request, model: nn.Module, images: dict[str, Images], execution: Execution
) -> Definition:
    weights = request.weights or request.space.weights
    return Definition(
        space=request.space,
        weights=str(Path(weights).absolute()) if weights else "",
        model=fingerprint(model),
        images={purpose: drawn.fingerprint for purpose, drawn in images.items()},
        sources={purpose: drawn.source for purpose, drawn in images.items()},
        seed=request.seed,
        sampler=request.sampler,
        execution=execution,
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
            "weight_bits": space.weight_bits,
            "activation_bits": space.activation_bits,
            "num_groups": str(list(space.num_groups)),
            "budget": str(space.budget),
            "seed": definition.seed,
            "sampler": definition.sampler.value,
            "compiled": definition.execution.compiled,
            "bfloat16": definition.execution.bfloat16,
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
    proposals = Proposals(
        Folder(request.out).journal,
        request.space.name,
        preparation.bops,
        preparation.budget,
        baselines(preparation, request.num_trials, request.seed),
        request.sampler,
        request.seed,
    )
    driver = Driver(
        proposals,
        tracker,
        trials=request.num_trials,
        images=len(preparation.task.images),
        budget=preparation.budget,
        listen=screen.trials,
    )
    cluster.run(preparation.task, driver)
    return driver.snapshot.ended


def _conclude(
    request: Request,
    preparation: Preparation,
    trials: tuple[Trial, ...],
    validation: Images,
    screen: Screen,
) -> Result:
    found = best(trials, preparation.budget)
    if found is None:
        errors = sorted({trial.error for trial in trials if trial.error})
        raise StudyError(f"no trial completed within the budget. {' '.join(errors)}".strip())
    contenders = {"best": found}
    for origin in (Origin.UNIFORM, Origin.ILP, Origin.RANDOM):
        if (contender := best_of(trials, origin, preparation.budget)) is not None:
            contenders[origin.value] = contender
    progress = screen.step("comparing on images that the search did not see")
    comparisons, reference_top1 = compare(
        preparation.model,
        preparation.task,
        preparation.bops,
        contenders,
        validation,
        progress,
    )
    return Result(
        Folder(request.out),
        trials,
        found,
        comparisons,
        len(validation),
        reference_top1,
        preparation.layers,
    )


def _report(result: Result, preparation: Preparation, validation: Images, tracker: Tracker) -> None:
    """Write the result beside the study, and close the tracker's run with it."""
    allocation = dict(result.best.proposal.allocation)
    content = {
        "best": {
            "trial": result.best.number,
            "bops": result.best.proposal.bops,
            "search_kl": result.best.kl,
            "allocation": allocation,
        },
        "budget": preparation.budget,
        "validation": {
            "source": validation.source,
            "images": len(validation),
            "fingerprint": validation.fingerprint,
            "reference_top1": result.reference_top1,
        },
        "comparisons": [asdict(row) for row in result.comparisons],
    }
    write_json(result.folder.result, content)
    figures = write_figures(
        result.folder.figures, result.trials, preparation.budget, result.layers, allocation
    )
    metrics = {f"validation_kl_{row.name}": row.kl for row in result.comparisons}
    metrics |= {
        f"validation_top1_{row.name}": row.top1
        for row in result.comparisons
        if row.top1 is not None
    }
    tracker.finish(
        metrics={"best_kl": result.best.kl or 0.0, "bops": result.best.proposal.bops, **metrics},
        tags={"igq.best_trial": str(result.best.number)},
        tables={"allocation.json": allocation, "result.json": content},
        files=figures,
    )
