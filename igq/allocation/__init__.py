"""Allocations within limits: uniform, by the integer program, relaxed, repaired, drawn."""

from igq.allocation.allocation import (
    Allocation,
    largest_uniform,
    uniform,
    uniform_allocations,
)
from igq.allocation.integer_program import Sensitivity, allocate
from igq.allocation.relaxation import Places, relaxed, relaxed_within_all
from igq.allocation.repair import Generator, random_allocation, repair, swap

__all__ = [
    "Allocation",
    "Generator",
    "Places",
    "Sensitivity",
    "allocate",
    "largest_uniform",
    "random_allocation",
    "relaxed",
    "relaxed_within_all",
    "repair",
    "swap",
    "uniform",
    "uniform_allocations",
]
