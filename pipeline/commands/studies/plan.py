"""The plan of a search: what it would do, how long and where, without starting it."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

import igq
from igq import layers
from pipeline.cluster.placement import NO_MEMORY, Machine, WorkerMemory, rooms, share_of
from pipeline.data import ImageSource, Preprocessing, drawn_counts
from pipeline.data.classes import read_classes
from pipeline.forecast.forecast import Choices, Drawn, Forecast, Workers, limits_in_words
from pipeline.forecast.probe import probe
from pipeline.forecast.resources import check_memory, check_model, memory_taken, resources_of
from pipeline.forecast.work import Work, steps_of
from pipeline.preparation.costs.limits import limits_of
from pipeline.preparation.models import device, load_model, with_num_classes
from pipeline.preparation.purposes import SEARCH, fewer_than_asked, image_sources, notes_on
from pipeline.preparation.study import execution_of, latency_profile, parameters_of
from pipeline.proposals import read_trials
from pipeline.study.definition import as_begun
from pipeline.study.folder import Folder, check_folder, check_unlocked
from pipeline.study.progress import Display, SilentDisplay
from pipeline.study.request import Request
from pipeline.tracking import sqlite_uri
from pipeline.tracking.uris import without_password
from pipeline.versions import versions
from search_spaces import SearchSpace


@dataclass(frozen=True)
class Means:
    """Where a search runs, and how often.

    >>> Means(workers=4).cluster is None  # Ray is started on this machine
    True
    """

    workers: int | None = None
    """Trials at once; None: one for each GPU, or else for each core, if memory holds as many."""
    cluster: str | None = None
    tracking: str | None = None
    """An MLflow URI; None: a store in the study's folder."""
    seeds: int = 1
    """Studies to run, each with a seed of its own."""


def plan(request: Request, means: Means | None = None, display: Display | None = None) -> Forecast:
    """Return what a search would take; nothing is started or written, and nothing fetched.

    The model, the weights and the images are looked at as the search would, and refused alike.

    Raises:
        IgqError: anything that the request gets wrong.

    >>> from pathlib import Path
    >>> import search_spaces
    >>> request = Request(search_spaces.load("demo"), Path("studies/new"))
    >>> forecast = plan(request)
    >>> forecast.choices.searched, forecast.images["search"].images, forecast.passes > 10_000
    (25, 96, True)
    """
    means, shown = means or Means(), display or SilentDisplay()
    base = memory_taken()
    space = with_num_classes(request.space, request.num_classes, request.weights)
    request, folder = as_begun(replace(request, space=space)), Folder(request.out)
    check_folder(folder, request.resume)
    check_unlocked(folder)
    check_model(space)
    model = _model(request, shown)
    work, sources, notes = _work(request, model, shown)
    execution = execution_of(request, model, tuple(work.layers))
    needed = resources_of(work, parameters_of(model), sources[SEARCH].read(0)[0].nbytes, base)
    check_memory(needed, 0 if means.cluster else means.workers or 1)
    workers = workers_of(means, needed.of_workers, needed.for_workers)
    shown.step("trying this machine for two seconds")
    rates = probe(space, model, sources[SEARCH], execution, workers.threads)
    return Forecast(
        space=space.name,
        model=space.model.name,
        weights=_weights(request),
        bits=_bits(space),
        choices=Choices.of(work),
        budget=str(space.budget),
        limits=limits_in_words(work.limits),
        images={p: Drawn(sources[p].name, count) for p, count in work.images.items()},
        steps=steps_of(work, rates, workers.at_once),
        compiled=execution.compiled,
        studies=means.seeds,
        ended=work.ended,
        workers=workers,
        resources=needed,
        places=_places(request, means),
        notes=notes,
    )


def workers_of(means: Means, memory: WorkerMemory = NO_MEMORY, left: int | None = None) -> Workers:
    """Return the processes that trials run in; on this machine they share its cores.

    `left` are its bytes for workers, as far as the system tells. A cluster is asked.

    Raises:
        ClusterError: the cluster cannot be joined, has no room, or a node has other versions.
    """
    if means.cluster is not None:
        return _joined(means.cluster, means.workers, memory)
    here = Machine.here(float("inf") if left is None else left)
    cores = max(1, int(here.cpus))
    share = share_of([here], means.workers, None, memory)
    room = sum(rooms([here], share).values())
    held = means.workers is None and not here.gpus and room < cores
    count = means.workers or room
    return Workers(count, share.threads, None, min(count, cores), held)


def _joined(address: str, workers: int | None, memory: WorkerMemory) -> Workers:
    from pipeline.cluster.ray import RayCluster  # a plan for this machine does without Ray

    nodes, share = RayCluster(address, workers, memory=memory).placed(versions())
    room = sum(nodes.values())
    count = min(workers or room, room)
    return Workers(count, share.threads, address, count, nodes=nodes)


def _model(request: Request, display: Display) -> nn.Module:
    """Return the full-precision model; with random weights where they would have to be fetched."""
    space = request.space
    if request.weights is None and space.weights is None:
        made = igq.create(space.model.name, space.model.arguments)
        return igq.rotated(made, space.scheme.rotation).to(device())
    model, _ = load_model(space, request.weights, request.checkpoint_key, display.say)
    return model.to(device())


def _work(
    request: Request, model: nn.Module, display: Display
) -> tuple[Work, Mapping[str, ImageSource], tuple[str, ...]]:
    """Return the work of a search, where its images come from, and what is to be said of them."""
    listed, space = layers(model), request.space
    limits = limits_of(space, listed, parameters_of(model), latency_profile(space, display))
    classes = None if request.classes is None else read_classes(request.classes)
    wanted = image_sources(request, Preprocessing.of(model).with_classes(classes))
    ended = 0
    if request.resume:
        ended = len(read_trials(Folder(request.out).journal, space.name, limits))
    sources = {purpose: source for purpose, (source, _, _) in wanted.items()}
    counts = drawn_counts(wanted)
    work = Work(request, model, listed, limits, counts, ended)
    return work, sources, (*notes_on(wanted), *fewer_than_asked(wanted, counts))


def _weights(request: Request) -> str:
    found = request.weights or request.space.weights
    return str(found) if found else "timm's hub, fetched when the search starts"


def _bits(space: SearchSpace) -> str:
    weights, activations = space.options.weight_bits, space.options.activation_bits
    return f"W{' '.join(map(str, weights))} A{' '.join(map(str, activations))}"


def _places(request: Request, means: Means) -> dict[str, str]:
    """Return name -> where it is written."""
    folder = Folder(request.out)
    first = request.over_seeds(means.seeds)[0].out
    return {
        "Study": f"{folder.path}" + ("" if means.seeds == 1 else f", in folders from {first.name}"),
        "Trials": without_password(means.tracking or sqlite_uri(folder.path)),
        "Temporary": os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(),
    }
