"""What a study computes once: candidates, costs, harms, reference predictions.

All of it follows from the weights, the images and the space. What takes long, fitting and the
harm table, is kept in the study's cache under a hash of what it follows from; the budget is not
among that, so that another budget starts from the same table.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import nn

from igq import (
    Allocation,
    BopsTable,
    Candidates,
    Corrected,
    Layer,
    allocate,
    correct,
    create,
    create_pretrained,
    fit,
    layers,
    observe,
    sensitivity,
    uniform,
)
from igq import bops as bops_table
from igq.evaluation import log_probabilities
from igq.vit import EAGER, Execution, quantize_weights
from pipeline.budget import largest_uniform, random_allocation, resolve
from pipeline.cache import (
    load_candidates,
    load_corrected,
    load_harm,
    save_candidates,
    save_corrected,
    save_harm,
)
from pipeline.config import Folder, digest
from pipeline.data import Images
from pipeline.objective import Objective, Task
from pipeline.study import Origin
from search_spaces import SearchSpace, WeightMethod

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
    execution: Execution = EAGER,
) -> Preparation:
    """Compute, or read from the cache, what every trial shares.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more than the budget.
    """
    listed, table, budget = costs(space, model)
    fitted = candidates_file(folder, space, model_key, calibration.fingerprint)
    candidates = _candidates(space, model, calibration, fitted, steps)
    if space.weight_method is WeightMethod.CORRECTED:
        path = weights_file(folder, space, model_key, calibration.fingerprint)
        _correct(space, model, candidates, calibration, path, steps)
    travelling = copy.deepcopy(model).cpu()  # to workers, which may have another device or none
    quantized = quantized_weights(space, travelling, folder, model_key, calibration.fingerprint)
    task = Task(
        model=quantized.model,
        weights=quantized.weights,
        candidates=candidates,
        images=search.values,
        reference=log_probabilities(model, search.values),
        chunk_size=max(1, -(-len(search) // CHUNKS)),
        execution=execution,
    )
    if execution.compiled:
        steps("compiling: up to half a minute the first time, a few seconds when it is cached")
        at_hand = uniform(listed, space.num_groups[0])
        next(Objective(task, next(model.parameters()).device).evaluate(at_hand))
    harm_from = [fitted.stem, search.fingerprint, space.sensitivity_images, asdict(execution)]
    harm = _harm(space, model, task, folder.cache / f"harm_{digest(harm_from)}.json", steps)
    return Preparation(model, task, listed, table, budget, harm)


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


def weights_file(folder: Folder, space: SearchSpace, model_key: str, calibration: str) -> Path:
    """Where the corrected weights lie that follow from these candidates."""
    fitted = candidates_file(folder, space, model_key, calibration)
    return folder.cache / f"weights_{digest([fitted.stem, space.weight_bits])}.safetensors"


def quantized_weights(
    space: SearchSpace, model: nn.Module, folder: Folder, model_key: str, calibration: str
) -> Corrected:
    """The model's weights as the space quantizes them; corrected ones are read from the cache.

    Raises:
        StudyError: the cache does not hold them.
    """
    if space.weight_method is WeightMethod.NEAREST:
        return Corrected(model, quantize_weights(model, space.weight_bits))
    path = weights_file(folder, space, model_key, calibration)
    return load_corrected(path, model, space.weight_bits)


def _correct(
    space: SearchSpace,
    model: nn.Module,
    candidates: Candidates,
    calibration: Images,
    path: Path,
    steps: Steps,
) -> None:
    if not path.exists():
        progress = steps("correcting the weights")
        images, bits = calibration.values, space.weight_bits
        save_corrected(path, correct(model, candidates, images, bits, progress=progress))


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
        harm = sensitivity(
            model, task.candidates, images, task.chunk_size, task.execution, progress
        )
        save_harm(path, harm)
    return load_harm(path)
