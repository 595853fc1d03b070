"""The heavy phases of a preparation in parts, for this process or for a cluster's workers.

Corrected weights, and both tables of sensitivities, follow from the candidates alone: workers
compute them side by side. A part that has ended is kept until its phase has, so that a search that
was interrupted goes on behind it.
"""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from igq import Candidates, Corrected, Scheme, correct, fit, observe, sensitivity
from igq.layer import Layer
from igq.progress import Progress
from igq.quantized import EAGER, Execution, WeightsByBits
from igq.sensitivities import batch_sums, measure_parts
from igq.settings import Options
from igq.vit import stage_of, stages
from pipeline.errors import StudyError
from pipeline.evaluation.work import Part, Workers
from pipeline.preparation.parts.shared import Results, Wanted
from pipeline.study.definition import digest
from pipeline.study.seals import read_sealed, write_sealed

PARTS = 4
"""The fewest parts of a phase that is cut (our choice): one that is interrupted loses no more."""


@dataclass(frozen=True, eq=False)
class Common:
    """Everything that all parts of a preparation share; sent to workers once."""

    model: nn.Module
    """The full-precision model."""
    candidates: Candidates
    calibration: Tensor
    """The calibration images."""
    images: Tensor
    """The search images."""
    measured_on: int
    """How many of the search images sensitivities are measured on."""
    chunk_size: int
    execution: Execution = EAGER
    options: Options | None = None
    """The settings to choose from, where bits are searched."""
    weights: WeightsByBits | None = None
    """The quantized weights, where bits are searched."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A file of the study's cache, and the parts that it is computed from."""

    wanted: Wanted
    step: str
    """The phase in words."""
    parts: Sequence[Part]
    finish: Callable[[list[Any]], None]
    """Writes the file, from the parts' results in their order."""


def ensure(phases: Sequence[Phase], common: Any, workers: Workers, results: Results) -> None:
    """Have the files of phases: as they lie there, shared, or else computed by workers.

    Several workers compute the parts of all phases together; one computes phase by phase.

    Raises:
        ClusterError: the workers are lost again and again.
        StudyError: a folder cannot be written.
    """

    def compute(missing: Sequence[Path]) -> None:
        due = [phase for phase in phases if phase.wanted.path in missing]
        together = [due] if workers.count() > 1 and due else [[phase] for phase in due]
        for some in together:
            _compute(some, common, workers, results)

    results.ensure_all([phase.wanted for phase in phases], compute)


def _compute(phases: Sequence[Phase], common: Any, workers: Workers, results: Results) -> None:
    kept = _Kept(results.study / "cache" / "parts")
    parts = [part for phase in phases for part in phase.parts]
    found = kept.read(parts)
    missing = [part for part in parts if part.name not in found]
    step = " and ".join(phase.step for phase in phases)
    progress = results.display.step(f"{step} ({workers.where})")
    for part, result in workers.map(common, missing, progress):
        found[part.name] = result
        kept.write(part, result)
    for phase in phases:
        phase.finish([found[part.name] for part in phase.parts])
    kept.clear()


@dataclass(frozen=True)
class _Kept:
    """Results of parts on disk, as long as their phase has not ended."""

    folder: Path

    def read(self, parts: Sequence[Part]) -> dict[str, Any]:
        found = {}
        for part in parts:
            path = self._path(part)
            if path.exists():
                try:
                    found[part.name] = read_sealed(path, path.stem, required=True)["result"]
                except (KeyError, StudyError):  # damaged: the part is computed again
                    path.unlink()
        return found

    def write(self, part: Part, result: Any) -> None:
        """Keep plain data; tensors make a phase of their own, which is written at once."""
        if isinstance(result, Mapping):
            path = self._path(part)
            write_sealed(path, {"result": result}, path.stem)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, part: Part) -> Path:
        return self.folder / f"{digest(part.name)}.json"


def measuring(
    name: str, common: Common, workers: Workers, passes: float, every: Sequence[Layer]
) -> list[Part]:
    """Return the parts of measuring the sensitivity of layers, of about equal cost."""
    compute = measure_layers if common.weights is None else measure_layers_by_part
    steps = len(stages(common.model))
    shares = [1 - stage_of(layer) % steps / steps for layer in every]
    pieces = cut(shares, max(PARTS, 2 * workers.count()))
    total = sum(shares)
    return [
        Part(
            f"{name}: {every[a].name} to {every[b - 1].name}",
            compute,
            [layer.name for layer in every[a:b]],
            passes * sum(shares[a:b]) / total,
        )
        for a, b in pieces
    ]


def cut(costs: Sequence[float], pieces: int) -> list[tuple[int, int]]:
    """Return neighbouring ranges of about equal cost, at most `pieces` and none of them empty.

    >>> cut([4.0, 1.0, 1.0, 1.0, 1.0], 2), cut([1.0], 4)
    ([(0, 1), (1, 5)], [(0, 1)])
    """
    found: list[tuple[int, int]] = []
    start, spent, each = 0, 0.0, sum(costs) / pieces
    for at, cost in enumerate(costs, start=1):
        spent += cost
        if spent >= each * (len(found) + 1) * (1 - 1e-9) or at == len(costs):
            found.append((start, at))
            start = at
    return found


def measure_layers(
    common: Common, names: Sequence[str], device: str, progress: Progress
) -> dict[str, dict[str, float]]:
    """Return layer -> number of groups -> KL in nats, for some layers."""
    images = common.images[: common.measured_on]
    made = sensitivity(
        _on(common.model, device),
        common.candidates,
        images,
        common.chunk_size,
        common.execution,
        progress,
        names,
    )
    return {name: {str(setting): kl for setting, kl in row.items()} for name, row in made.items()}


def measure_layers_by_part(
    common: Common, names: Sequence[str], device: str, progress: Progress
) -> dict[str, dict[str, float]]:
    """Return layer -> part of a setting -> KL in nats, for some layers."""
    assert common.weights is not None
    assert common.options is not None
    images = common.images[: common.measured_on]
    model, options = _on(common.model, device), common.options
    return measure_parts(model, common.candidates, common.weights, options, images, progress, names)


def predict_batches(
    common: Common, batches: tuple[int, int], device: str, progress: Progress
) -> dict[str, Any]:
    """Return batch -> layer -> sums of predicted KLs, for the batches from one to another."""
    model = _on(common.model, device)
    made = batch_sums(model, common.candidates, common.images, range(*batches), progress=progress)
    return {str(batch): sums for batch, sums in made.items()}


def fit_candidates(
    common: tuple[nn.Module, Tensor],
    how: tuple[Scheme, Sequence[int], int],
    device: str,
    progress: Progress,
) -> Candidates:
    """Return the candidates of (model, calibration images) with (scheme, groups, bits)."""
    scheme, num_groups, bits = how
    ranges = observe(_on(common[0], device), common[1], scheme)
    return fit(ranges, num_groups, bits, progress)


def correct_weights(
    common: Common, how: tuple[int, int], device: str, progress: Progress
) -> Corrected:
    """Return the corrected weights with (bits, steps), on the CPU."""
    bits, steps = how
    model = _on(common.model, device)
    made = correct(model, common.candidates, common.calibration, bits, steps, progress=progress)
    weights = {
        name: replace(w, codes=w.codes.cpu(), scale=w.scale.cpu(), zero_point=w.zero_point.cpu())
        for name, w in made.weights.items()
    }
    return Corrected(made.model.to("cpu"), weights)


def _on(model: nn.Module, device: str) -> nn.Module:
    """Return the model on a device; the original stays where it is."""
    if next(model.parameters()).device.type == device.partition(":")[0]:
        return model
    return copy.deepcopy(model).to(device)
