"""The groupings of activations: a sum type with one file for each kind.

To add a kind, write a file with a subclass of `Grouping`, give it a value in `igq.scheme`, and
list it here.
"""

from collections.abc import Callable, Mapping

from igq.grouping.base import (
    FittedGrouping,
    Grouping,
    GroupQuantizer,
    Groups,
    Quantizer,
    SliceQuantizer,
)
from igq.grouping.channels import Channels
from igq.grouping.contiguous import ContiguousChannels, ContiguousKeys
from igq.grouping.per_slice import HEAD_CHANNELS, HEAD_TOKENS, TOKENS, PerSlice
from igq.grouping.rows import Rows
from igq.grouping.whole import Whole
from igq.layer import Kind, Layer
from igq.scheme import Assignment, InputMethod, Scheme, SoftmaxMethod

__all__ = [
    "Channels",
    "ContiguousChannels",
    "ContiguousKeys",
    "FittedGrouping",
    "GroupQuantizer",
    "Grouping",
    "Groups",
    "PerSlice",
    "Quantizer",
    "Rows",
    "SliceQuantizer",
    "Whole",
    "grouping_of",
    "tagged",
]

_INPUTS: Mapping[InputMethod, Callable[[Scheme], Grouping]] = {
    InputMethod.CHANNELS: lambda scheme: Channels(scheme.assignment),
    InputMethod.TOKENS: lambda scheme: ContiguousChannels(),
}
_SOFTMAX: Mapping[SoftmaxMethod, Callable[[Scheme], Grouping]] = {
    SoftmaxMethod.ROWS: lambda scheme: Rows(),
    SoftmaxMethod.UNIT_ROWS: lambda scheme: Rows(unit=True),
    SoftmaxMethod.KEYS: lambda scheme: ContiguousKeys(),
}
_FIXED: Mapping[Kind, Grouping] = {
    Kind.EMBEDDING: Whole(),
    Kind.QUERY: HEAD_TOKENS,
    Kind.KEY: HEAD_TOKENS,
    Kind.VALUE: HEAD_CHANNELS,
    Kind.HEAD: TOKENS,
}
_TAGGED: Mapping[str, Callable[[Assignment], Grouping]] = {
    "channels": Channels,
    "rows": Rows,
    "unit rows": lambda assignment: Rows(assignment, unit=True),
    "whole": Whole,
    "token groups": lambda assignment: ContiguousChannels(),
    "key groups": lambda assignment: ContiguousKeys(),
    "tokens": lambda assignment: TOKENS,
    "head tokens": lambda assignment: HEAD_TOKENS,
    "head channels": lambda assignment: HEAD_CHANNELS,
}


def grouping_of(layer: Layer, scheme: Scheme) -> Grouping:
    """Return the grouping that a scheme gives a layer.

    >>> fc1 = Layer("fc1", Kind.LINEAR, tokens=2, channels=3, outputs=5)
    >>> grouping_of(fc1, Scheme.PAPER).tag, grouping_of(fc1, Scheme.BEST).tag
    ('channels', 'token groups')
    """
    if layer.kind is Kind.LINEAR:
        return _INPUTS[scheme.inputs](scheme)
    if layer.kind is Kind.SOFTMAX:
        return _SOFTMAX[scheme.softmax](scheme)
    return _FIXED[layer.kind]


def tagged(tag: str, assignment: Assignment = Assignment.NEAREST) -> Grouping:
    """Return the grouping of a tag, as files name it.

    Raises:
        KeyError: there is no such tag.

    >>> tagged("key groups")
    ContiguousKeys()
    """
    return _TAGGED[tag](assignment)
