"""Results that follow from the calibration images alone: candidates, and quantized weights.

Both take long and are kept in the study's cache, under a hash of everything they follow from.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from igq import Candidates, WeightMethod, correct, fit, layers, observe
from igq.correction import STEPS
from igq.quantized import WeightsByBits, quantize_weights
from pipeline.data import Images
from pipeline.preparation.cache import (
    load_candidates,
    load_corrected,
    save_candidates,
    save_corrected,
)
from pipeline.preparation.shared import Results
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
        key = digest([self.candidates_file.stem, bits, self._steps])
        return self.folder.cache / f"weights_{key}.safetensors"

    def compute(self, model: nn.Module, images: Images, display: Display) -> None:
        """Fit, and correct the weights, unless it was done before."""
        space, name = self.space, self.space.model.name
        results = Results(self.folder.path, self.shared, display)

        def fitted() -> None:
            ranges = observe(model, images.loaded(), space.scheme)
            progress = display.step("fitting every layer for every number of groups")
            found = fit(ranges, space.num_groups, space.base_bits[1], progress)
            save_candidates(self.candidates_file, found)

        results.ensure(self.candidates_file, f"candidates of {name}", fitted)
        if space.weight_method is WeightMethod.NEAREST:
            return
        for bits in space.options.weight_bits:

            def corrected(bits: int = bits) -> None:
                progress = display.step(f"correcting the weights for {bits} bits")
                candidates, steps = self.candidates(model), self._steps
                found = correct(model, candidates, images.loaded(), bits, steps, progress=progress)
                save_corrected(self.weights_file(bits), found)

            what = f"corrected weights of {name}, {bits} bits"
            results.ensure(self.weights_file(bits), what, corrected)

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

    @property
    def _steps(self) -> int:
        """Steps of tuning: none where bits are searched, as one model serves all bits."""
        return 0 if self.space.options.searches_bits else STEPS
