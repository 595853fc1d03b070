"""The work of a search, step by step: the most passes that it takes, and about how long.

Passes are counted as the search counts them (image-forward-passes), seconds follow from a probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from igq import Layer, Limits, WeightMethod
from igq.correction import correction_passes
from igq.sensitivities import parts_passes, predicted_passes, sensitivity_passes
from pipeline.forecast.probe import Rates
from pipeline.preparation.purposes import CALIBRATION, FINAL, SEARCH, VALIDATION
from pipeline.preparation.starts import RANDOM_TRIALS
from pipeline.searching.final_round import FINALISTS
from pipeline.study.request import Request

REUSED = 0.35
"""The part of a pass that a proposed trial computes (docs/reports/0029-reuse.md)."""
RACED = 0.5
"""The part of the final round's passes that is left where finalists drop out (a rough figure)."""
BOTH_ENDS = 15.0
"""Seconds to start Ray and its workers, and to draw figures in the end (a rough figure)."""
BESIDE_PASSES = 0.15
"""Seconds of a trial beside its passes, on an idle machine: Ray, Optuna, the journal and MLflow
(docs/reports/0047-plan.md)."""


@dataclass(frozen=True)
class Step:
    """A step of a search."""

    name: str
    passes: int
    """The most image-forward-passes."""
    seconds: float
    """About how long it takes on this machine."""


@dataclass(frozen=True, eq=False)
class Work:
    """Everything that the passes of a search follow from.

    `images` is purpose -> how many, `ended` the trials that a resumed study has.
    """

    request: Request
    model: nn.Module
    layers: Sequence[Layer]
    limits: Limits
    images: Mapping[str, int]
    ended: int = 0

    @property
    def trials(self) -> int:
        """The trials that are still to run."""
        return max(0, self.request.num_trials - self.ended)

    @property
    def correction(self) -> int:
        """The passes that take as long as correcting the weights."""
        space = self.request.space
        if space.weight_method is WeightMethod.NEAREST:
            return 0
        each = correction_passes(self.images[CALIBRATION], space.tuned_steps)
        return round(each) * len(space.options.weight_bits)

    @property
    def measuring(self) -> int:
        """The passes of measured sensitivities."""
        space, options = self.request.space, self.request.space.options
        images = min(space.sensitivity_images, self.images[SEARCH])
        if options.searches_bits:
            return round(parts_passes(self.model, self.layers, options, images))
        counts = len(options.num_groups)
        return round(sensitivity_passes(self.model, self.layers, counts, images))

    @property
    def predicting(self) -> int:
        """The passes of predicted sensitivities."""
        options = self.request.space.options
        if options.searches_bits:
            return 0
        return predicted_passes(self.images[SEARCH], len(options.num_groups))

    @property
    def finalists(self) -> int:
        """The most trials of the final round."""
        programs = 1 if self.request.space.options.searches_bits else 2
        return min(self.request.num_trials, FINALISTS + 1 + programs)

    @property
    def final(self) -> int:
        """The passes of the final round, with those of full precision."""
        return (self.finalists + 1) * self.images[FINAL]

    @property
    def given(self) -> int:
        """The passes that each rival gets: as many as the search took."""
        search = self.request.num_trials * self.images[SEARCH]
        return search + self.measuring + self.predicting + self.final

    @property
    def rivals(self) -> bool:
        """Whether rivals run."""
        return self.request.rivals and not self.request.front

    @property
    def contenders(self) -> int:
        """The allocations of the comparison: best, uniform, the programs', random, repaired."""
        return (5 if self.request.space.options.searches_bits else 6) - (not self.rivals)


def steps_of(work: Work, rates: Rates, at_once: int) -> tuple[Step, ...]:
    """Return the steps of a search whose trials run so many at once."""
    images, quantized = work.images, rates.quantized / at_once
    beside = BESIDE_PASSES * rates.slowdown
    first = min(work.trials, RANDOM_TRIALS + 3)
    running = first + REUSED * (work.trials - first)
    compared = (1 + work.contenders) * images[VALIDATION]
    steps = [
        Step("start and end", 0, BOTH_ENDS * rates.slowdown),
        Step("read images", 0, rates.reading * sum(images.values())),
        Step("calibrate", images[CALIBRATION], rates.full * images[CALIBRATION]),
        Step("correct weights", work.correction, rates.gradients * work.correction),
        Step("measure sensitivities", work.measuring, rates.full * work.measuring),
        Step("predict sensitivities", work.predicting, rates.gradients * work.predicting),
        Step(
            "trials",
            work.trials * images[SEARCH],
            running * images[SEARCH] * quantized + beside * work.trials,
        ),
        Step("final round", work.final, RACED * work.final * rates.quantized),
        _rivals(work, quantized, beside),
        Step("compare", compared, compared * rates.quantized),
    ]
    return tuple(step for step in steps if step.seconds)


def _rivals(work: Work, quantized: float, beside: float) -> Step:
    """Return the step of both rivals, of which the repaired one has measured sensitivities.

    `beside` are the seconds of a trial beside its passes.
    """
    if not work.rivals:
        return Step("rivals", 0, 0.0)
    repaired = work.given - work.measuring
    passes = work.given + repaired
    seconds = (work.given + REUSED * repaired) * quantized
    return Step("rivals", passes, seconds + beside * passes / work.images[SEARCH])
