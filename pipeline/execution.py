"""Whether compiling pays: the one place where that is decided."""

from collections.abc import Iterable

import torch

from igq import Layer
from igq.vit import EAGER, Execution, fastest
from pipeline.config import Engine

WORTH_COMPILING = 10**12
"""Multiplications from which on compiling, up to half a minute, saves more than it costs."""


def execution(
    engine: Engine, layers: Iterable[Layer], images: int, device: torch.device | str
) -> Execution:
    """How to compute quantized predictions of so many images, those of all trials together.

    It follows from counts and from the machine, not from a clock, so that it does not change
    between two runs.
    """
    products = images * sum(layer.tokens * layer.channels * layer.outputs for layer in layers)
    if engine is Engine.EAGER or (engine is Engine.AUTO and products < WORTH_COMPILING):
        return EAGER
    return fastest(device)
