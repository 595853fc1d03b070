"""The scheme: one value that says how a model is quantized. Nothing here needs torch."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

TUNING_STEPS = 30
"""Steps that tune corrected weights (docs/reports/0051-correction-steps.md)."""


class InputMethod(StrEnum):
    """The groups of the input of a linear layer in a block.

    >>> InputMethod("tokens") is InputMethod.TOKENS
    True
    """

    CHANNELS = "channels"
    """Each channel picks one of the fitted groups in each image, as in the paper."""
    TOKENS = "tokens"
    """Each token's channels form contiguous groups, each with its own range."""


class SoftmaxMethod(StrEnum):
    """The groups of a softmax map, and whether its rows keep their sum of 1.

    >>> SoftmaxMethod("keys") is SoftmaxMethod.KEYS
    True
    """

    ROWS = "rows"
    """Each row picks one of the fitted groups in each image, as in the paper."""
    UNIT_ROWS = "unit_rows"
    """Rows pick groups, and the part of its sum that a row loses is spread over its keys."""
    KEYS = "keys"
    """Each row's keys form contiguous groups, each with its own range; the sum is kept."""


class Assignment(StrEnum):
    """The rule by which a channel or row picks its group, in each image.

    >>> Assignment("nearest") is Assignment.NEAREST
    True
    """

    NEAREST = "nearest"
    """The bounds nearest to its range, as in the paper (Eq. 4 and 5)."""
    LEAST_ERROR = "least_error"
    """The bounds with the least expected error of its values (our choice).

    Bounds are fitted for this rule: they lie a margin outside the mean of their members.
    """


class Rotation(StrEnum):
    """The linear layers that compute in a rotated basis.

    >>> Rotation.WIDE.includes(8, 24), Rotation.WIDE.includes(8, 8)
    (True, False)
    """

    NONE = "none"
    """None, as in the paper."""
    WIDE = "wide"
    """Layers with more outputs than inputs (qkv, fc1): rotating costs less than a few groups."""
    ALL = "all"
    """All linear layers of the blocks."""

    def includes(self, inputs: int, outputs: int) -> bool:
        """Return whether a linear layer of a block with this shape is rotated."""
        return self is Rotation.ALL or (self is Rotation.WIDE and outputs > inputs)


class WeightMethod(StrEnum):
    """The rule by which weights get their codes.

    >>> WeightMethod("corrected") is WeightMethod.CORRECTED
    True
    """

    NEAREST = "nearest"
    """Each weight takes its nearest code, as in the paper."""
    CORRECTED = "corrected"
    """Codes, scales, biases and normalisations are chosen so that predictions change least.

    Where bits are searched, only codes and scales are: normalisations and biases would have to
    follow the bits of every layer.
    """


@dataclass(frozen=True)
class Scheme:
    """Everything that decides how a model is quantized, except bits and numbers of groups.

    Candidates carry the scheme that they were fitted for, and costs are computed from the
    candidates, so that two parts of a program cannot disagree about it.

    >>> Scheme() == Scheme.BEST, Scheme.PAPER.rotation.value
    (True, 'none')
    """

    inputs: InputMethod = InputMethod.TOKENS
    softmax: SoftmaxMethod = SoftmaxMethod.KEYS
    assignment: Assignment = Assignment.LEAST_ERROR
    """Applies to channels that pick groups; rows always pick the nearest bounds."""
    rotation: Rotation = Rotation.WIDE
    weights: WeightMethod = WeightMethod.CORRECTED

    PAPER: ClassVar["Scheme"]
    """Every choice as in the paper."""
    BEST: ClassVar["Scheme"]
    """The choices that were best on real weights (docs/reports)."""


Scheme.PAPER = Scheme(
    InputMethod.CHANNELS,
    SoftmaxMethod.ROWS,
    Assignment.NEAREST,
    Rotation.NONE,
    WeightMethod.NEAREST,
)
Scheme.BEST = Scheme()
