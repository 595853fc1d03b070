"""Decide whether compiling pays."""

from collections.abc import Iterable

import torch

from igq import Layer
from igq.quantized import EAGER, Execution, fastest
from pipeline.study.request import Engine

WORTH_COMPILING = 10**12
"""Multiplications above which compiling, up to half a minute, saves more than it costs."""


def execution(
    engine: Engine, layers: Iterable[Layer], images: int, device: torch.device | str
) -> Execution:
    """Return how to compute quantized predictions of this many images, of all trials together.

    It follows from counts and from the machine, not from a clock, so that it does not change
    between two runs.
    """
    products = images * sum(layer.tokens * layer.channels * layer.outputs for layer in layers)
    if engine is Engine.EAGER or (engine is Engine.AUTO and products < WORTH_COMPILING):
        return EAGER
    return fastest(device)
