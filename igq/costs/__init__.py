"""The costs of allocations: tables with a unit, and limits to any number of them.

To add a cost, write a function that returns a `CostTable` with a unit of its own.
"""

from igq.costs.bops import bops, bops_table
from igq.costs.limits import Limit, Limits
from igq.costs.size import size_table
from igq.costs.table import CostTable, Number, Unit
from igq.costs.ties import Tie, Ties, tie_layers

__all__ = [
    "CostTable",
    "Limit",
    "Limits",
    "Number",
    "Tie",
    "Ties",
    "Unit",
    "bops",
    "bops_table",
    "size_table",
    "tie_layers",
]
