"""The memory that a study's phases take, as counts of bytes: nothing is loaded or measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from igq.correction.discrepancy import KEPT
from igq.correction.gram import BATCH_SIZE
from igq.correction.gram import MEMORY as GRAMS
from igq.layer import Layer, block_and_place
from igq.sensitivities.predicted import MEMORY as ERRORS
from pipeline.evaluation.objective import MEMORY as PREFIXES

FLOAT = 4
"""Bytes of a number."""
BASE = 900 * 2**20
"""Bytes of Python, torch and Ray in a process (measured on Linux, CPU)."""
ROUNDED_PER_OUTPUT = 41
"""Values that a block's rounding takes, for each value of its output, with those that the heap does
not give back (measured for ViT-B: docs/reports/0041-correction-cost.md)."""
COUNTS = 6
"""Numbers of groups whose errors are held at once (a rough figure)."""
HELD = 6
"""Copies of a layer's largest activation that a forward pass holds at once (our choice)."""


@dataclass(frozen=True)
class Memory:
    """The bytes that a process takes at most, in each phase."""

    correction: int
    sensitivities: int
    trials: int

    @property
    def most(self) -> int:
        """The most that any phase takes: a machine holds as many workers as it has this."""
        return max(self.correction, self.sensitivities, self.trials)


@dataclass(frozen=True)
class Load:
    """The images of a study, and the bytes of one."""

    search: int
    calibration: int
    image_bytes: int
    chunk: int
    """Search images that are computed at once."""
    weight_bits: int = 1
    """How many numbers of weight bits there are to choose from."""


def memory(layers: Sequence[Layer], parameters: int, load: Load) -> Memory:
    """Return about the bytes that a worker takes, from a model's layers and number of parameters.

    Estimates are meant to be too high rather than too low.

    >>> from igq.layer import Kind
    >>> fc = Layer("blocks.0.mlp.fc1", Kind.LINEAR, tokens=197, channels=192, outputs=768)
    >>> found = memory([fc], 5_700_000, Load(128, 32, 4 * 3 * 224**2, chunk=16))
    >>> found.most == max(found.correction, found.trials, found.sensitivities) > 2**30
    True
    """
    model = FLOAT * parameters
    images = load.image_bytes * (load.search + load.calibration)
    largest = max(FLOAT * m.tokens * max(m.channels, m.outputs) for m in layers)
    codes = parameters * load.weight_bits
    common = BASE + images + model
    trials = common + 2 * model + codes + PREFIXES + HELD * load.chunk * largest
    sensitivities = common + 2 * model + max(_predicting(layers, load), HELD * load.chunk * largest)
    return Memory(_correction(layers, model, common, load), sensitivities, trials)


def _predicting(layers: Sequence[Layer], load: Load) -> int:
    """Return the bytes of the errors of some images, and of what their gradients need."""
    each = COUNTS * sum(FLOAT * m.tokens * m.channels for m in layers)
    errors = min(ERRORS, each * load.search)
    images = max(1, errors // each)
    return errors + images * sum(_outputs(layers)) * ROUNDED_PER_OUTPUT


def _correction(layers: Sequence[Layer], model: int, common: int, load: Load) -> int:
    """Return the bytes of correcting: a full, a tuned and a dequantized model, and activations.

    Rounding takes more than tuning, which uses again what the heap has kept of it.
    """
    batch = min(BATCH_SIZE, load.calibration)
    outputs = sum(_outputs(layers))
    kept = outputs * load.calibration
    sizes = [2 * FLOAT * m.channels**2 for m in layers if m.weighted]
    grams = max(min(GRAMS, sum(sizes)), max(sizes, default=0)) + 5 * max(sizes, default=0)
    rounding = outputs * batch * ROUNDED_PER_OUTPUT + max(grams, kept if kept <= KEPT else 0)
    return common + 3 * model + rounding


def _outputs(layers: Sequence[Layer]) -> list[int]:
    """Return the bytes of each block's output for an image."""
    largest: dict[str, int] = {}
    for layer in layers:
        if layer.weighted:
            block = block_and_place(layer.name)[0]
            size = FLOAT * layer.tokens * min(layer.channels, layer.outputs)
            largest[block] = max(largest.get(block, 0), size)
    return list(largest.values())
