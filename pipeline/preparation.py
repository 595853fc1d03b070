"""What a study computes once: candidates, costs, harms, reference predictions.

All of it follows from the weights, the images and the space. What takes long, fitting and the
harm table, is kept in the study's cache under a hash of what it follows from; the budget is not
among that, so that another budget starts from the same table.
"""

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from igq import (
    Allocation,
    BopsTable,
    Layer,
    Rotation,
    allocate,
    create,
    create_pretrained,
    predicted_sensitivity,
    rotated,
    sensitivity,
)
from igq import bops as bops_table
from igq.allocation import Harm
from igq.cost import tie
from igq.evaluation import log_probabilities
from igq.fisher import DRAWS, predicted_forwards
from igq.layers import Tie, tied
from igq.mixed import (
    Options,
    measure_parts,
    mixed_bops,
    mixed_harm,
    mixed_sizes,
    parts_forwards,
    uniform_allocations,
)
from igq.sensitivity import sensitivity_forwards
from igq.vit import EAGER, Execution
from pipeline.budget import Budgets, largest_uniform, random_allocation, resolve, resolve_size
from pipeline.cache import load_harm, save_harm
from pipeline.calibrating import Calibration, Steps, listed_layers, options_of
from pipeline.config import digest, fingerprint
from pipeline.data import Images
from pipeline.files import read_json, write_json
from pipeline.objective import Objective, Task
from pipeline.study import Origin
from search_spaces import SearchSpace

CHUNKS = 8
"""Reports of a trial that is not stopped (our choice: the pruner needs at least 4)."""
RANDOM_TRIALS = 8
"""Random baselines, but no more than a quarter of the trials."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """What a study computes once."""

    model: nn.Module
    """The full-precision model, on the driver's device."""
    task: Task
    layers: tuple[Layer, ...]
    bops: BopsTable
    budget: int
    harm: Harm
    harm_forwards: int
    """Image-forward-passes that the harm table takes."""
    predicted: Harm | None = None
    """The harm table as gradients predict it on all search images; None where bits are searched."""
    predicted_forwards: int = 0
    """Image-forward-passes that take as long."""


def costs(space: SearchSpace, model: nn.Module) -> tuple[tuple[Layer, ...], BopsTable, int]:
    """The layers of a model, what each number of groups costs, and the budget, in BOPs.

    The table has the model's size where bits of weights are searched; elsewhere all allocations
    are as large, and a limit to it is met by all of them or by none.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger.
        UnsupportedModelError: the model's layers cannot be listed.
    """
    listed, ties = listed_layers(model, space), Tie(space.tied) if space.tied else None
    options = options_of(space)
    if options is not None:
        table = mixed_bops(listed, options, space.base_bits, ties)
    else:
        table = bops_table(listed, space.num_groups, *space.base_bits).tied(tied(listed, ties))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights, activations = space.base_bits
    options = options or Options((weights,), (activations,), space.num_groups)
    sizes = resolve_size(space.max_size, listed, mixed_sizes(listed, options, parameters, ties))
    if sizes.varies:
        table = replace(table, sizes=sizes)
    return listed, table, resolve(space.budget, listed, table, *space.base_bits)


def load_model(space: SearchSpace, weights: Path | None = None) -> tuple[nn.Module, str]:
    """The full-precision model of a space, with these weights, or the space's, or timm's own.

    Its linear layers are rotated as the space says; the hash behind it is that of the weights as
    they were loaded, which no rounding of a rotation changes.

    Raises:
        UnsupportedModelError: timm has no such model.
        WeightsError: the weights cannot be read, do not fit, or cannot be fetched.
    """
    spec, local = space.model, weights or space.weights
    if local is None:
        model = create_pretrained(spec.name, spec.arguments)
    else:
        model = create(spec.name, spec.arguments, local)
    return rotated(model, Rotation(space.rotation.value)), fingerprint(model)


def prepare(
    calibration: Calibration,
    model: nn.Module,
    images: Images,
    search: Images,
    steps: Steps,
    execution: Execution = EAGER,
) -> Preparation:
    """Compute, or read from the cache, what every trial shares; `images` are those to calibrate on.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger.
    """
    space = calibration.space
    listed, table, budget = costs(space, model)
    calibration.compute(model, images, steps)
    candidates = calibration.candidates(model)
    travelling = copy.deepcopy(model).cpu()  # to workers, which may have another device or none
    changed, weights = calibration.weights(travelling)
    task = Task(
        model=changed,
        weights=next(iter(weights.values())),
        weights_by_bits=weights if space.mixed else {},
        candidates=candidates,
        images=search.values,
        reference=log_probabilities(model, search.values),
        chunk_size=max(1, -(-len(search) // CHUNKS)),
        execution=execution,
    )
    if execution.compiled:
        steps("compiling: up to half a minute the first time, a few seconds when it is cached")
        at_hand = Allocation.of(table.expand(uniform_allocations(table)[0]))
        next(Objective(task, next(model.parameters()).device).evaluate(at_hand))
    weights_from = [space.weight_bits, space.weight_method] if space.mixed else []
    kept = calibration.candidates_file.stem
    search_from = [kept, *weights_from, search.fingerprint]
    harm_from = [*search_from, space.sensitivity_images, asdict(execution)]
    path = calibration.folder.cache / f"harm_{digest(harm_from)}.json"
    harm, forwards = _harm(space, model, task, table, path, steps)
    path = calibration.folder.cache / f"predicted_{digest([*search_from, DRAWS])}.json"
    predicted, as_long = (None, 0) if space.mixed else _predicted(model, task, table, path, steps)
    return Preparation(model, task, listed, table, budget, harm, forwards, predicted, as_long)


def baselines(preparation: Preparation, trials: int, seed: int) -> list[tuple[Origin, Allocation]]:
    """What every search is measured against: uniform, the ILP twice, random within budget."""
    table, budget = preparation.bops, preparation.budget
    generator = np.random.default_rng([seed, len(preparation.layers)])
    return [
        (Origin.UNIFORM, largest_uniform(table, budget)),
        *_programs(preparation, budget),
        *(
            (Origin.RANDOM, random_allocation(table, budget, generator))
            for _ in range(min(RANDOM_TRIALS, trials // 4))
        ),
    ]


def front_baselines(
    preparation: Preparation, budgets: Budgets, trials: int
) -> list[tuple[Origin, Allocation]]:
    """Where a front starts from: uniform allocations in the range, and the ILPs' at their costs.

    The dearest uniform ones, so that these are half of the trials or few more. The ILPs' also for
    the space's own budget, at which a front is compared in the end.
    """
    table = preparation.bops
    within = [a for a in uniform_allocations(table) if table.fits(a, budgets.high)]
    uniform = within[-max(1, trials // 6) :]
    first = _programs(preparation, preparation.budget)
    for allocation in uniform:
        first.append((Origin.UNIFORM, allocation))
        if (cost := table.of(allocation)) != preparation.budget:
            first.extend(_programs(preparation, cost))
    return first


def _programs(preparation: Preparation, budget: int) -> list[tuple[Origin, Allocation]]:
    """What the integer program answers: with the measured harms, and with the predicted ones."""
    found = [(Origin.ILP, allocate(preparation.harm, preparation.bops, budget))]
    if preparation.predicted is not None:
        predicted = allocate(preparation.predicted, preparation.bops, budget)
        found.append((Origin.FISHER, predicted))
    return found


def _predicted(
    model: nn.Module, task: Task, table: BopsTable, path: Path, steps: Steps
) -> tuple[Harm, int]:
    """The harms that gradients predict, and the image-forward-passes that take as long."""
    if not path.exists():
        progress = steps("predicting from gradients how much each layer matters")
        save_harm(
            path, predicted_sensitivity(model, task.candidates, task.images, progress=progress)
        )
    as_long = predicted_forwards(len(task.images), len(task.candidates.num_groups))
    return tie(load_harm(path), table.members), as_long


def _harm(
    space: SearchSpace, model: nn.Module, task: Task, table: BopsTable, path: Path, steps: Steps
) -> tuple[Harm, int]:
    """The harm of each choice of the table, and the image-forward-passes that it takes."""
    images, candidates = task.images[: space.sensitivity_images], task.candidates
    options, weights = options_of(space), task.weights_by_bits
    if not path.exists():
        progress = steps("measuring how much each layer matters")
        if options is not None:
            write_json(path, measure_parts(model, candidates, weights, options, images, progress))
        else:
            harm = sensitivity(model, candidates, images, task.chunk_size, task.execution, progress)
            save_harm(path, harm)
    if options is not None:
        passes = parts_forwards(model, candidates.layers, options, len(images))
        return mixed_harm(table, read_json(path), options), round(passes)
    passes = sensitivity_forwards(model, candidates, len(images))
    return tie(load_harm(path), table.members), round(passes)
