"""Results that follow from the calibration images alone: candidates, and quantized weights.

Both take long and are kept in the study's cache, under a hash of everything they follow from.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from igq import Candidates, Corrected, WeightMethod, layers
from igq.correction import correction_passes
from igq.quantized import WeightsByBits, quantize_weights
from pipeline.data import Images
from pipeline.evaluation.work import Here, Part, Workers
from pipeline.preparation.parts.cache import (
    load_candidates,
    load_corrected,
    save_candidates,
    save_corrected,
)
from pipeline.preparation.parts.phases import (
    Common,
    Phase,
    correct_weights,
    ensure,
    fit_candidates,
)
from pipeline.preparation.parts.shared import Results, Wanted
from pipeline.study.definition import digest
from pipeline.study.folder import Folder
from pipeline.study.progress import Display
from search_spaces import SearchSpace


@dataclass(frozen=True)
class Calibration:
    """The files of a calibration: of a study's folder, a space, a model and its images."""

    folder: Folder
    space: SearchSpace
    model_key: str
    images_key: str
    shared: Path | None = None
    """The folder of results that studies share; None where this one shares none."""

    @property
    def candidates_file(self) -> Path:
        """The candidates that were fitted to these weights and calibration images."""
        space = self.space
        fitted = [space.num_groups, space.activation_bits, space.assignment]
        sliced = [space.input_method, space.rotation, space.softmax_method]
        key = digest([self.model_key, self.images_key, *fitted, *sliced])
        return self.folder.cache / f"candidates_{key}.safetensors"

    def weights_file(self, bits: int) -> Path:
        """Return the file of the corrected weights of these bits, found with the candidates."""
        key = digest([self.candidates_file.stem, bits, self.space.tuned_steps])
        return self.folder.cache / f"weights_{key}.safetensors"

    def compute(self, model: nn.Module, images: Images, display: Display) -> None:
        """Fit, and correct the weights, unless it was done before."""
        self.fit(model, images.loaded(), display)
        values = images.loaded()
        common = Common(model, self.candidates(model), values, values, 0, 1)
        here, results = Here(next(model.parameters()).device.type), self.results(display)
        ensure(self.correcting(len(values)), common, here, results)

    def fit(
        self, model: nn.Module, images: Tensor, display: Display, workers: Workers | None = None
    ) -> None:
        """Fit, unless it was done before; by a worker, or else in this process."""
        space = self.space
        wanted = Wanted(self.candidates_file, f"candidates of {space.model.name}")
        how = (space.scheme, tuple(space.num_groups), space.base_bits[1])
        part = Part(wanted.what, fit_candidates, how, float(len(images)))
        here = workers or Here(next(model.parameters()).device.type)

        def compute() -> None:
            step = f"fitting every layer for every number of groups ({here.where})"
            for _, found in here.map((model, images), [part], display.step(step)):
                save_candidates(self.candidates_file, found)

        self.results(display).ensure(wanted.path, wanted.what, compute)

    def correcting(self, images: int) -> list[Phase]:
        """Return the phases that correct the weights; none where nearest codes are taken."""
        if self.space.weight_method is WeightMethod.NEAREST:
            return []
        return [self._correcting(bits, images) for bits in self.space.options.weight_bits]

    def _correcting(self, bits: int, images: int) -> Phase:
        path, name = self.weights_file(bits), self.space.model.name
        what = f"corrected weights of {name}, {bits} bits"
        passes = correction_passes(images, self.space.tuned_steps)
        part = Part(
            path.stem, correct_weights, (bits, self.space.tuned_steps), passes, corrects=True
        )

        def finish(found: list[Corrected]) -> None:
            save_corrected(path, found[0])

        step = f"correcting the weights for {bits} bits"
        return Phase(Wanted(path, what), step, [part], finish)

    def results(self, display: Display) -> Results:
        """Return where results lie, and what is shared with other studies."""
        return Results(self.folder.path, self.shared, display)

    def candidates(self, model: nn.Module) -> Candidates:
        """Read the candidates.

        Raises:
            StudyError: the cache does not hold them.
        """
        options = replace(self.space.options, activation_bits=self.space.base_bits[1:])
        return load_candidates(self.candidates_file, layers(model), self.space.scheme, options)

    def weights(self, model: nn.Module) -> tuple[nn.Module, WeightsByBits]:
        """Return the corrected model, and weight bits -> weights; nearest codes need no file.

        Raises:
            StudyError: the cache does not hold them.
        """
        every = self.space.options.weight_bits
        if self.space.weight_method is WeightMethod.NEAREST:
            return model, {bits: quantize_weights(model, bits) for bits in every}
        read = {bits: load_corrected(self.weights_file(bits), model, bits) for bits in every}
        changed = next(iter(read.values())).model
        return changed, {bits: corrected.weights for bits, corrected in read.items()}
