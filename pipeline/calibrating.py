"""What follows from the calibration images alone: fitted quantizers and quantized weights.

Both take long and are kept in the study's cache, under a hash of what they follow from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from torch import nn

import igq
from igq import Candidates, Layer, Slices, correct, fit, layers, observe
from igq.correction import STEPS
from igq.mixed import Options, WeightsByBits
from igq.vit import quantize_weights
from pipeline.cache import load_candidates, load_corrected, save_candidates, save_corrected
from pipeline.config import Folder, digest
from pipeline.data import Images
from search_spaces import Assignment, InputMethod, SearchSpace, SoftmaxMethod, WeightMethod

Steps = Callable[[str], Callable[[float], None]]
"""Names a step that begins; gives what to call with the share of it that is done."""


class Chosen(TypedDict):
    """How layers are sliced, and how channels pick their groups."""

    softmax: Slices
    assignment: igq.Assignment
    inputs: Slices


@dataclass(frozen=True)
class Calibration:
    """Where what was calibrated lies: in which study, for which space, weights and images."""

    folder: Folder
    space: SearchSpace
    model_key: str
    images_key: str

    @property
    def candidates_file(self) -> Path:
        """The candidates that were fitted to these weights and calibration images."""
        space = self.space
        fitted = [space.num_groups, space.activation_bits, space.assignment]
        sliced = [space.input_method, space.rotation, space.softmax_method]
        key = digest([self.model_key, self.images_key, *fitted, *sliced])
        return self.folder.cache / f"candidates_{key}.safetensors"

    def weights_file(self, bits: int) -> Path:
        """The corrected weights of so many bits that follow from these candidates."""
        key = digest([self.candidates_file.stem, bits, self._steps])
        return self.folder.cache / f"weights_{key}.safetensors"

    def compute(self, model: nn.Module, images: Images, steps: Steps) -> None:
        """Fit, and correct the weights, unless it was done before."""
        space = self.space
        if not self.candidates_file.exists():
            ranges = observe(model, images.values, **sliced_as(space))
            progress = steps("fitting every layer for every number of groups")
            fitted = fit(ranges, space.num_groups, space.base_bits[1], progress)
            save_candidates(self.candidates_file, fitted)
        if space.weight_method is WeightMethod.NEAREST:
            return
        for bits in (b for b in self._weight_bits if not self.weights_file(b).exists()):
            progress = steps(f"correcting the weights for {bits} bits")
            candidates = self.candidates(model)
            corrected = correct(
                model, candidates, images.values, bits, self._steps, progress=progress
            )
            save_corrected(self.weights_file(bits), corrected)

    def candidates(self, model: nn.Module) -> Candidates:
        """The candidates that were fitted.

        Raises:
            StudyError: the cache does not hold them.
        """
        space = self.space
        bits = space.base_bits[1]
        listed = listed_layers(model, space)
        return load_candidates(self.candidates_file, listed, space.num_groups, bits)

    def weights(self, model: nn.Module) -> tuple[nn.Module, WeightsByBits]:
        """The model as its weights were corrected, if they were, and weight bits -> weights.

        Raises:
            StudyError: the cache does not hold them.
        """
        if self.space.weight_method is WeightMethod.NEAREST:
            return model, {bits: quantize_weights(model, bits) for bits in self._weight_bits}
        read = {b: load_corrected(self.weights_file(b), model, b) for b in self._weight_bits}
        changed = next(iter(read.values())).model
        return changed, {bits: corrected.weights for bits, corrected in read.items()}

    @property
    def _weight_bits(self) -> tuple[int, ...]:
        options = options_of(self.space)
        return options.weight_bits if options else self.space.base_bits[:1]

    @property
    def _steps(self) -> int:
        """Where bits are searched nothing is tuned: the model is the same for all of them."""
        return 0 if self.space.mixed else STEPS


def listed_layers(model: nn.Module, space: SearchSpace) -> tuple[Layer, ...]:
    """The layers of a model, sliced as the space says.

    Raises:
        UnsupportedModelError: the model's layers cannot be listed.
    """
    return layers(model, **sliced_as(space))


def sliced_as(space: SearchSpace) -> Chosen:
    """What a space says of its layers, in igq's words."""
    return chosen_layers(space.softmax_method, space.assignment, space.input_method)


def chosen_layers(softmax: SoftmaxMethod, assignment: Assignment, inputs: InputMethod) -> Chosen:
    """What `igq.layers` and `igq.observe` are to be told of these methods."""
    rows_of = {
        SoftmaxMethod.ROWS: Slices.ROWS,
        SoftmaxMethod.UNIT_ROWS: Slices.UNIT_ROWS,
        SoftmaxMethod.KEYS: Slices.KEY_GROUPS,
    }
    groups_of = {InputMethod.CHANNELS: Slices.CHANNELS, InputMethod.TOKENS: Slices.TOKEN_GROUPS}
    return {
        "softmax": rows_of[softmax],
        "assignment": igq.Assignment(assignment.value),
        "inputs": groups_of[inputs],
    }


def options_of(space: SearchSpace) -> Options | None:
    """What the settings of a space are made of; None where groups alone are searched."""

    def listed(bits: int | tuple[int, ...]) -> tuple[int, ...]:
        return bits if isinstance(bits, tuple) else (bits,)

    if not space.mixed:
        return None
    return Options(listed(space.weight_bits), listed(space.activation_bits), space.num_groups)
