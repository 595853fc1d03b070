"""Everything that a study computes once: candidates, weights, reference, sensitivities.

All of it follows from the weights, the images and the space. Fitting and sensitivities take long
and are kept in the study's cache under a hash of what they follow from; the budget is not part of
it, so that another budget starts from the same tables.
"""

import copy
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from statistics import geometric_mean

from torch import Tensor, nn

from igq import Allocation, Layer, Limits, Setting
from igq.allocation import uniform_allocations
from igq.costs import Number
from igq.evaluation import accuracy, log_probabilities
from igq.sensitivities import predicted_passes
from pipeline.data import Images
from pipeline.evaluation.chance import near_chance
from pipeline.evaluation.objective import Objective
from pipeline.evaluation.task import Task
from pipeline.evaluation.work import Here, Workers, worth
from pipeline.preparation.parts.cache import load_tensors, save_tensors
from pipeline.preparation.parts.phases import Common, ensure
from pipeline.preparation.purposes import CALIBRATION, SEARCH
from pipeline.preparation.sensitivities import (
    Table,
    images_measured,
    measured,
    measured_passes,
    predicted,
    sensing,
)
from pipeline.preparation.study import Study
from pipeline.study.definition import digest
from pipeline.study.progress import Display
from pipeline.study.seals import write_sealed

CHUNKS = 8
"""Reports of a trial that is not stopped (our choice: the pruner needs at least 4)."""
TINY = 1e-12
"""A sensitivity in nats that has a logarithm."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """A study with everything that it computes once."""

    study: Study
    task: Task
    measured: Table
    """Measured sensitivities (Eq. 9)."""
    predicted: Table | None = None
    """Sensitivities as gradients predict them; None where bits are searched."""

    @property
    def model(self) -> nn.Module:
        """The full-precision model."""
        return self.study.model

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the model."""
        return self.study.layers

    @property
    def limits(self) -> Limits:
        """The limits of the search."""
        return self.study.limits

    @property
    def budget(self) -> Number:
        """The space's budget."""
        return self.study.limits.budget

    @property
    def passes(self) -> int:
        """Image-forward-passes of both tables of sensitivities."""
        return self.measured.passes + (self.predicted.passes if self.predicted else 0)

    def sensitivities_of(
        self, allocation: Mapping[str, Setting]
    ) -> dict[tuple[str, Setting], float]:
        """Return (layer, setting) -> sensitivity in nats, for the settings of an allocation.

        Where there are measured and predicted ones it is the geometric mean of both: at 4 bits the
        predicted are better, at 2 bits the measured. Layers that share a setting are one entry.
        """
        shared, found = self.limits.ties, {}
        for name, row in self.measured.sensitivity.items():
            setting = allocation[shared.get(name, (name,))[0]]
            nats = [row[setting]]
            if self.predicted is not None:
                nats.append(self.predicted.sensitivity[name][setting])
            found[name, setting] = geometric_mean(max(each, TINY) for each in nats)
        return found


def prepare(study: Study, display: Display, workers: Workers | None = None) -> Preparation:
    """Compute the parts that all trials share, or read them from the cache.

    `workers` compute the heavy phases; without them this process does.

    Raises:
        ClusterError: the workers are lost again and again.
        StudyError: the cache is damaged, or the folder cannot be written.
    """
    calibration, search = study.calibration, study.images[SEARCH]
    here, values = Here(next(study.model.parameters()).device.type), search.loaded()
    calibrating = study.images[CALIBRATION].loaded()
    calibration.fit(study.model, calibrating, display, here)
    reference = _reference(study, search, display)
    _warn_of_chance(reference, search, display)
    common = Common(
        model=study.model,
        candidates=calibration.candidates(study.model),
        calibration=calibrating,
        images=values,
        measured_on=images_measured(study),
        chunk_size=max(1, -(-len(search) // CHUNKS)),
        execution=study.definition.execution,
    )
    _compute(study, common, _worth(study, common, workers, here), display)
    return _prepared(study, common, reference, display, workers or here)


def _compute(study: Study, common: Common, workers: Workers, display: Display) -> None:
    """Correct weights and find sensitivities, unless it was done before."""
    results = study.calibration.results(display)
    correcting = study.calibration.correcting(len(common.calibration))
    if not study.space.options.searches_bits:
        ensure([*correcting, *sensing(study, common, workers)], common, workers, results)
        return
    ensure(correcting, common, workers, results)  # of which the sensitivities are measured
    _, weights = study.calibration.weights(study.model)
    common = replace(common, weights=weights, options=study.space.options)
    ensure(sensing(study, common, workers), common, workers, results)


def _worth(study: Study, common: Common, workers: Workers | None, here: Here) -> Workers:
    """Return the workers where they save more than their start takes, or else this process."""
    if workers is None:
        return here
    images, counts = len(common.images), len(common.candidates.num_groups)
    passes = measured_passes(study, common.candidates) + predicted_passes(images, counts)
    correcting = study.calibration.correcting(len(common.calibration))
    passes += sum(part.passes for phase in correcting for part in phase.parts)
    return workers if worth(workers, passes, study.layers) else here


def _prepared(
    study: Study, common: Common, reference: Tensor, display: Display, workers: Workers
) -> Preparation:
    travelling = copy.deepcopy(study.model).cpu()  # to workers, which may have another device
    changed, weights = study.calibration.weights(travelling)
    task = Task(
        model=changed,
        weights=weights,
        candidates=common.candidates,
        images=common.images,
        reference=reference,
        chunk_size=common.chunk_size,
        execution=common.execution,
    )
    if task.execution.compiled and workers.count() > 1:
        _compile(study, task, display)
    tables = measured(study, common.candidates), predicted(study, common.candidates)
    return Preparation(study, task, *tables)


def _warn_of_chance(reference: Tensor, search: Images, display: Display) -> None:
    if search.labels is None:
        return
    top1 = accuracy(reference, search.labels)
    if warning := near_chance(top1, len(search), reference.shape[1]):
        display.warn(warning)


def _reference(study: Study, search: Images, display: Display) -> Tensor:
    """Return the full-precision log probabilities of the search images."""
    name = f"reference_{digest([study.definition.model, search.fingerprint])}"
    path = study.folder.cache / f"{name}.safetensors"
    if study.shared is None:  # a few passes: computed as soon as read
        return log_probabilities(study.model, search.loaded())

    def computed() -> None:
        found = log_probabilities(study.model, search.loaded())
        save_tensors(path, {"log_probabilities": found})

    what = f"predictions of {study.space.model.name} in full precision"
    study.calibration.results(display).ensure(path, what, computed)
    return load_tensors(path)["log_probabilities"]


def _compile(study: Study, task: Task, display: Display) -> None:
    """Fill the compiler's cache for several workers, unless a search did so on this machine."""
    shape = [task.chunk_size, len(task.images), asdict(task.execution)]
    key = digest(
        [study.calibration.candidates_file.stem, shape, socket.gethostname(), version("torch")]
    )
    path = study.folder.cache / f"compiled_{key}.json"

    def computed() -> None:
        display.step("compiling for all workers: up to half a minute, once")
        limits = study.limits
        anything = Allocation.of(limits.expand(uniform_allocations(limits.table)[0]))
        next(Objective(task, next(study.model.parameters()).device).evaluate(anything))
        write_sealed(path, {"machine": socket.gethostname()}, path.stem)

    what = f"the compiler's cache of {study.space.model.name}"
    study.calibration.results(display).ensure(path, what, computed)
