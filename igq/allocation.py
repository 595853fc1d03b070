"""Allocations: how many groups each layer gets, and the one of least harm within a budget.

The paper (Sec. 3.3) takes the harm of a layer's number of groups to be independent of the other
layers', so that the best allocation is the answer to an integer linear program:

    minimise  sum_{l,g} harm[l, g] a[l, g]
    such that sum_g a[l, g] = 1 for every layer l,  sum_{l,g} bops[l, g] a[l, g] <= budget.

Where choices have bits of weights, the size of the model may be limited in the same way.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from igq.cost import BopsTable
from igq.errors import InfeasibleBudgetError, InvalidArgumentError
from igq.layers import Layer, grouped
from igq.settings import Choice
from igq.size import check_size


@dataclass(frozen=True)
class Allocation(Mapping[str, Choice]):
    """Layer name -> num_groups, or setting; a frozen, hashable mapping in layer order.

    >>> Allocation.of({"head": 8})["head"]
    8
    """

    entries: tuple[tuple[str, Choice], ...]

    @classmethod
    def of(cls, num_groups: Mapping[str, Choice]) -> "Allocation":
        """The allocation with these entries, in this order."""
        return cls(tuple(num_groups.items()))

    def __getitem__(self, name: str) -> Choice:
        for key, value in self.entries:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def key(self) -> str:
        """A short name of the content, the same in every process."""
        return hashlib.sha256(repr(sorted(self.entries)).encode()).hexdigest()[:12]


def uniform(layers: Iterable[Layer], num_groups: int) -> Allocation:
    """The allocation that gives every layer the same number of groups.

    Raises:
        InvalidArgumentError: `num_groups` is below 1.

    >>> from igq.layers import Slices
    >>> fc1 = Layer("fc1", Slices.CHANNELS, tokens=4, channels=8, outputs=2, weighted=True)
    >>> dict(uniform([fc1], 8))
    {'fc1': 8}
    """
    if num_groups < 1:
        raise InvalidArgumentError(f"`num_groups` must be at least 1, but got {num_groups}.")
    return Allocation.of({layer.name: num_groups for layer in grouped(layers)})


Harm = Mapping[str, Mapping[Choice, float]]
"""Layer name -> num_groups -> harm: the perturbation of the predictions (Eq. 9), in nats."""

HARM_SCALE = 1e4
"""The largest harm in the solver's terms, which takes two answers within 1e-6 for equal."""

Numbers = NDArray[np.float64]


def allocate(harm: Harm, bops: BopsTable, budget: int) -> Allocation:
    """The allocation of least total harm whose BOPs are within `budget` (Sec. 3.3).

    Where `bops` limits the model's size, that is kept as well.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more than `budget`, or is larger.
        InvalidArgumentError: a harm is missing or not finite.

    >>> table = BopsTable({"fc1": {1: 0, 2: 10}, "fc2": {1: 0, 2: 10}}, fixed=1, base={})
    >>> harm = {"fc1": {1: 0.3, 2: 0.2}, "fc2": {1: 0.9, 2: 0.1}}
    >>> dict(allocate(harm, table, budget=11))
    {'fc1': 1, 'fc2': 2}
    """
    check_budget(bops, budget)
    pairs = [(name, g) for name, costs in bops.layers.items() for g in costs]
    harms = np.array([_finite_harm(harm, name, g) for name, g in pairs])
    one_each = np.array([[float(name == row) for name, _ in pairs] for row in bops.layers])
    # The solver's tolerances are absolute: harms enter as shares of the largest, costs of the room.
    objective = HARM_SCALE * harms / (np.abs(harms).max() or 1.0)
    constraints, allowed = [LinearConstraint(one_each, 1, 1)], np.full(len(pairs), True)
    for table, most in bops.limits(budget):
        extra = np.array([table.layers[n][g] - min(table.layers[n].values()) for n, g in pairs])
        room = most - table.minimum
        unit = max(room, 1)
        constraints.append(LinearConstraint(extra[None] / unit, -np.inf, room / unit))
        allowed &= extra <= room
    while True:
        shares = _solve(objective, constraints, allowed)
        chosen = Allocation.of({n: g for (n, g), share in zip(pairs, shares, strict=True) if share})
        if bops.fits(chosen, budget):
            return chosen
        # Over a limit by less than the solver's tolerance: anything but this one.
        constraints.append(LinearConstraint(shares[None], -np.inf, len(bops.layers) - 1))


def _solve(
    objective: Numbers, constraints: list[LinearConstraint], allowed: NDArray[np.bool_]
) -> Numbers:
    """The 0s and 1s that minimise `objective`; only `allowed` ones may be 1."""
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


def check_budget(bops: BopsTable, budget: int) -> int:
    """Return `budget` if at least one allocation fits.

    Raises:
        InfeasibleBudgetError: even the cheapest allocation costs more, or is larger than `bops`
            allows.

    >>> check_budget(BopsTable({"fc1": {1: 8, 2: 9}}, fixed=2, base={"fc1": 8}), budget=10)
    10
    """
    if budget < bops.minimum:
        raise InfeasibleBudgetError(
            f"`budget` must be at least the cheapest possible allocation's "
            f"{bops.minimum:.4g} BOPs, but got budget={budget:.4g}."
        )
    if bops.sizes is not None:
        check_size(bops.sizes)
    return budget


def _finite_harm(harm: Harm, name: str, num_groups: Choice) -> float:
    value = harm.get(name, {}).get(num_groups, float("nan"))
    if not np.isfinite(value):
        raise InvalidArgumentError(
            "`harm` must be a finite number for every layer and number of groups, "
            f"but got {value} for {name} with {num_groups} groups."
        )
    return value
