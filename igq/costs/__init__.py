"""The costs of allocations: tables with a unit, and limits to any number of them.

To add a cost, write a function that returns a `CostTable` with a unit of its own.
"""

from igq.costs.bops import bops, bops_table
from igq.costs.latency import Machine, Operator, Profile, Timing, latency_table
from igq.costs.limits import Limit, Limits
from igq.costs.profiles import profile_json, profile_of
from igq.costs.size import size_table
from igq.costs.table import CostTable, Number, Unit
from igq.costs.ties import Tie, Ties, tie_layers

__all__ = [
    "CostTable",
    "Limit",
    "Limits",
    "Machine",
    "Number",
    "Operator",
    "Profile",
    "Tie",
    "Ties",
    "Timing",
    "Unit",
    "bops",
    "bops_table",
    "latency_table",
    "profile_json",
    "profile_of",
    "size_table",
    "tie_layers",
]
