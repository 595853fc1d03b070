"""What a study computes once: candidates, costs, harms, reference predictions.

All of it follows from the weights, the images and the space. What takes long, fitting and the
harm table, is kept in the study's cache under a hash of what it follows from; the budget is not
among that, so that another budget starts from the same table.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from igq import (
    Allocation,
    BopsTable,
    Candidates,
    Layer,
    allocate,
    create,
    create_pretrained,
    fit,
    layers,
    observe,
    sensitivity,
)
from igq import bops as bops_table
from igq.evaluation import log_probabilities
from igq.sensitivity import sensitivity_forwards
from igq.vit import quantize_weights
from pipeline.budget import largest_uniform, random_allocation, resolve
from pipeline.cache import load_candidates, load_harm, save_candidates, save_harm
from pipeline.config import Folder, digest
from pipeline.data import Images
from pipeline.objective import Task
from pipeline.study import Origin
from search_spaces import SearchSpace

CHUNKS = 8
"""Reports of a trial that is not stopped (our choice: the pruner needs at least 4)."""
RANDOM_TRIALS = 8
"""Random baselines, but no more than a quarter of the trials."""

Steps = Callable[[str], Callable[[float], None]]
"""Names a step that begins; gives what to call with the share of it that is done."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What a study computes once."""

    model: nn.Module
    """The full-precision model, on the driver's device."""
    task: Task
    layers: tuple[Layer, ...]
    bops: BopsTable
    budget: int
    harm: Mapping[str, Mapping[int, float]]
    harm_forwards: int
    """Image-forward-passes that the harm table takes."""


def costs(space: SearchSpace, model: nn.Module) -> tuple[tuple[Layer, ...], BopsTable, int]:
    """The layers of a model, what each number of groups costs, and the budget, in BOPs.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more.
        UnsupportedModelError: the model's layers cannot be listed.
    """
    listed = layers(model)
    bits = (space.weight_bits, space.activation_bits)
    table = bops_table(listed, space.num_groups, *bits)
    return listed, table, resolve(space.budget, listed, table, *bits)


def load_model(space: SearchSpace, weights: Path | None = None) -> nn.Module:
    """The full-precision model of a space, with these weights, or the space's, or timm's own.

    Raises:
        UnsupportedModelError: timm has no such model.
        WeightsError: the weights cannot be read, do not fit, or cannot be fetched.
    """
    spec, local = space.model, weights or space.weights
    if local is None:
        return create_pretrained(spec.name, spec.arguments)
    return create(spec.name, spec.arguments, local)


def prepare(
    space: SearchSpace,
    model: nn.Module,
    model_key: str,
    calibration: Images,
    search: Images,
    folder: Folder,
    steps: Steps,
) -> Preparation:
    """Compute, or read from the cache, what every trial shares.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more than the budget.
    """
    listed, table, budget = costs(space, model)
    fitted = candidates_file(folder, space, model_key, calibration.fingerprint)
    candidates = _candidates(space, model, calibration, fitted, steps)
    travelling = copy.deepcopy(model).cpu()  # to workers, which may have another device or none
    task = Task(
        model=travelling,
        weights=quantize_weights(travelling, space.weight_bits),
        candidates=candidates,
        images=search.values,
        reference=log_probabilities(model, search.values),
        chunk_size=max(1, -(-len(search) // CHUNKS)),
    )
    harm_from = [fitted.stem, search.fingerprint, space.sensitivity_images]
    harm = _harm(space, model, task, folder.cache / f"harm_{digest(harm_from)}.json", steps)
    harm_forwards = round(
        sensitivity_forwards(model, candidates, min(space.sensitivity_images, len(search)))
    )
    return Preparation(model, task, listed, table, budget, harm, harm_forwards)


def baselines(preparation: Preparation, trials: int, seed: int) -> list[tuple[Origin, Allocation]]:
    """What every search is measured against: uniform, the paper's ILP, random within budget."""
    table, budget = preparation.bops, preparation.budget
    generator = np.random.default_rng([seed, len(preparation.layers)])
    return [
        (Origin.UNIFORM, largest_uniform(preparation.layers, table, budget)),
        (Origin.ILP, allocate(preparation.harm, table, budget)),
        *(
            (Origin.RANDOM, random_allocation(table, budget, generator))
            for _ in range(min(RANDOM_TRIALS, trials // 4))
        ),
    ]


def candidates_file(folder: Folder, space: SearchSpace, model_key: str, calibration: str) -> Path:
    """Where the candidates lie that were fitted to these weights and calibration images."""
    key = digest([model_key, calibration, space.num_groups, space.activation_bits])
    return folder.cache / f"candidates_{key}.safetensors"


def _candidates(
    space: SearchSpace, model: nn.Module, calibration: Images, path: Path, steps: Steps
) -> Candidates:
    if not path.exists():
        ranges = observe(model, calibration.values)
        progress = steps("fitting every layer for every number of groups")
        save_candidates(path, fit(ranges, space.num_groups, space.activation_bits, progress))
    return load_candidates(path, layers(model), space.num_groups, space.activation_bits)


def _harm(
    space: SearchSpace, model: nn.Module, task: Task, path: Path, steps: Steps
) -> dict[str, dict[int, float]]:
    if not path.exists():
        images = task.images[: space.sensitivity_images]
        progress = steps("measuring how much each layer matters")
        save_harm(path, sensitivity(model, task.candidates, images, progress=progress))
    return load_harm(path)
