"""Allocations as Optuna's parameters: the place of each layer's setting, cheapest first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, IntDistribution

from igq import Allocation, Limits, Setting
from igq.allocation import Generator
from pipeline.proposals.surrogate import Numbers

Key = tuple[int, ...]
"""An allocation as the places of its layers' settings, in order."""


class Encoding:
    """Allocations as Optuna's parameters and back; Optuna sees an order of settings."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.settings = {name: limits.settings(name) for name in limits.names}
        self._places = {
            name: {setting: place for place, setting in enumerate(known)}
            for name, known in self.settings.items()
        }
        self.distributions: Mapping[str, BaseDistribution] = {
            name: IntDistribution(0, len(known) - 1) for name, known in self.settings.items()
        }

    @property
    def in_order(self) -> bool:
        """Whether entries stand in the order of the forward pass: no tie spans several blocks."""
        return self.limits.ties.in_order

    def encode(self, allocation: Mapping[str, Setting]) -> dict[str, int]:
        """Return the parameters of an allocation."""
        return {name: self._places[name][setting] for name, setting in allocation.items()}

    def decode(self, params: Mapping[str, Any]) -> Allocation:
        """Return the allocation that parameters stand for."""
        return Allocation.of({name: self.settings[name][params[name]] for name in self.settings})

    def of_layers(self, allocation: Mapping[str, Setting]) -> Allocation:
        """Return an allocation layer by layer: tied layers share an entry."""
        return Allocation.of(self.limits.expand(allocation))

    def allocation(self, places: Sequence[int]) -> Allocation:
        """Return the allocation with these places of the layers' settings, in order."""
        return self.decode(dict(zip(self.settings, places, strict=True)))

    def random(self, generator: Generator) -> dict[str, int]:
        """Return random parameters."""
        return {name: int(generator.integers(len(s))) for name, s in self.settings.items()}

    def places(self, params: Mapping[str, Any]) -> Key:
        """Return parameters in the order of the layers."""
        return tuple(params[name] for name in self.settings)

    def array(self, of: Callable[[str, Setting], float], absent: float) -> Numbers:
        """Return (layers, settings): a number for each, `absent` where there is no setting."""
        most = max(len(known) for known in self.settings.values())
        rows = [[of(name, s) for s in known] for name, known in self.settings.items()]
        return np.array([row + [absent] * (most - len(row)) for row in rows], dtype=float)
