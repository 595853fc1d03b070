"""The allocation of least total sensitivity within limits (Sec. 3.3).

The paper takes the sensitivity of a layer's setting to be independent of the other layers', so
that the best allocation is the answer to an integer linear program:

    minimise  sum_{l,s} sensitivity[l, s] a[l, s]
    such that sum_s a[l, s] = 1 for every layer l,  sum_{l,s} cost[l, s] a[l, s] <= most,

the latter for every limit.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from igq.allocation.allocation import Allocation
from igq.costs import Limits
from igq.errors import InvalidArgumentError
from igq.settings import Setting

Sensitivity = Mapping[str, Mapping[Setting, float]]
"""Layer name -> setting -> perturbation of the predictions (Eq. 9), in nats."""

SCALE = 1e4
"""The largest sensitivity in the solver's terms, which takes two answers within 1e-6 for equal."""

Numbers = NDArray[np.float64]


def allocate(sensitivity: Sensitivity, limits: Limits) -> Allocation:
    """Return the allocation of least total sensitivity within all limits (Sec. 3.3).

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more than a limit.
        InvalidArgumentError: a sensitivity is missing or not finite.

    >>> from igq.costs import CostTable, Unit
    >>> one, two = Setting(num_groups=1), Setting(num_groups=2)
    >>> costs = {"fc1": {one: 0, two: 10}, "fc2": {one: 0, two: 10}}
    >>> sensitivity = {"fc1": {one: 0.3, two: 0.2}, "fc2": {one: 0.9, two: 0.1}}
    >>> allocation = allocate(sensitivity, CostTable(Unit.BOPS, costs, fixed=1).limit(11))
    >>> {name: str(setting) for name, setting in allocation.items()}
    {'fc1': '1', 'fc2': '2'}
    """
    limits.check()
    pairs = [(name, s) for name, costs in limits.table.layers.items() for s in costs]
    values = np.array([_finite(sensitivity, name, s) for name, s in pairs])
    one_each = np.array([[float(name == row) for name, _ in pairs] for row in limits.names])
    # The solver's tolerances are absolute: sensitivities enter as shares of the largest, costs
    # as shares of the room.
    objective = SCALE * values / (np.abs(values).max() or 1.0)
    constraints, allowed = [LinearConstraint(one_each, 1, 1)], np.full(len(pairs), True)
    for limit in limits.bounded:
        table = limit.table
        extra = np.array([table.layers[n][s] - min(table.layers[n].values()) for n, s in pairs])
        room = limit.most - table.minimum
        unit = max(room, 1)
        constraints.append(LinearConstraint(extra[None] / unit, -np.inf, room / unit))
        allowed &= extra <= room
    while True:
        shares = _solve(objective, constraints, allowed)
        chosen = Allocation.of({n: s for (n, s), share in zip(pairs, shares, strict=True) if share})
        if limits.fits(chosen):
            return chosen
        # Over a limit by less than the solver's tolerance: exclude this answer.
        constraints.append(LinearConstraint(shares[None], -np.inf, len(limits.names) - 1))


def _solve(
    objective: Numbers, constraints: list[LinearConstraint], allowed: NDArray[np.bool_]
) -> Numbers:
    """Return the 0s and 1s that minimise `objective`; only `allowed` ones may be 1."""
    answer = milp(
        objective,
        constraints=constraints,
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, allowed.astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:  # the cheapest allocation fits, so only the solver can have failed
        raise RuntimeError(f"the integer program of `allocate` was not solved: {answer.message}")
    solution: Numbers = np.round(answer.x)
    return solution


def _finite(sensitivity: Sensitivity, name: str, setting: Setting) -> float:
    value = sensitivity.get(name, {}).get(setting, float("nan"))
    if not np.isfinite(value):
        raise InvalidArgumentError(
            "`sensitivity` must be a finite number for every layer and setting, "
            f"but got {value} for {name} with {setting}."
        )
    return value
