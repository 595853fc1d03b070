"""The integer program of `igq.allocate`, relaxed: nearly its answer, in a millisecond.

Lagrange's relaxation lets each layer take the setting that is best at one price of cost. The room
that is left over is spent where it helps most. The total is above the least by less than one
layer's step.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from igq.errors import InfeasibleBudgetError

Places = Int[np.ndarray, " layers"]
"""The place of each layer's setting among its settings, cheapest first."""
HALVINGS = 50
"""Halvings of the interval that holds the price: it is then known to 15 digits."""
COARSE_HALVINGS = 20
"""The same for prices of further limits: `repair` spends the room that they leave."""
HIGHEST = 2.0**30
"""The highest price that is tried."""


def relaxed(
    loss: Float[np.ndarray, "layers settings"],
    costs: Float[np.ndarray, "layers settings"],
    room: float | int,
) -> Places:
    """Return settings with little loss in total whose costs sum to at most `room`.

    A setting that a layer does not have costs infinity.

    Raises:
        InfeasibleBudgetError: even the cheapest settings cost more.

    >>> loss, costs = np.array([[0.3, 0.2], [0.9, 0.1]]), np.array([[0.0, 10.0], [0.0, 10.0]])
    >>> relaxed(loss, costs, room=11.0).tolist()
    [0, 1]
    """
    cheapest = costs.min(axis=1).sum()
    if cheapest > room:
        raise InfeasibleBudgetError(
            f"`budget` must be at least the cheapest possible allocation's {cheapest:.4g}, "
            f"but got {room:.4g}."
        )
    absent = np.isinf(costs)
    loss, costs = np.where(absent, np.inf, loss), np.where(absent, 0.0, costs)

    def at(price: float) -> Places:
        chosen: Places = (loss + price * costs).argmin(axis=1)
        return chosen

    places = at(_lowest_price(lambda price: _total(costs, at(price)) <= room, HALVINGS))
    assert _total(costs, places) <= room  # the cheapest settings fit
    return _spend(places, loss, costs, room)


def relaxed_within_all(
    loss: Float[np.ndarray, "layers settings"],
    costs: Float[np.ndarray, "limits layers settings"],
    rooms: Sequence[float | int],
) -> Places:
    """Return the same for several limits: all but the first have a price, added to the loss.

    Where no price keeps the last limits, the answer is over them, and `repair` mends it.
    """
    if len(rooms) == 1:
        return relaxed(loss, costs[0], rooms[0])
    last = np.where(np.isinf(costs[-1]), 0.0, costs[-1])
    unit = last.max() or 1.0

    def at(price: float) -> Places:
        return relaxed_within_all(loss + price * last / unit, costs[:-1], rooms[:-1])

    return at(_lowest_price(lambda price: _total(last, at(price)) <= rooms[-1], COARSE_HALVINGS))


def _total(costs: Float[np.ndarray, "layers settings"], places: Places) -> float:
    return float(costs[np.arange(len(costs)), places].sum())


def _spend(
    places: Places,
    loss: Float[np.ndarray, "layers settings"],
    costs: Float[np.ndarray, "layers settings"],
    room: float | int,
) -> Places:
    """Spend the room that is left, each time where a unit of cost takes most of the loss away."""
    layers = np.arange(len(loss))
    while True:
        gain = loss[layers, places][:, None] - loss
        extra = costs - costs[layers, places][:, None]
        fits = (gain > 0) & (extra <= room - _total(costs, places))
        if not fits.any():
            return places
        rate = np.where(fits, gain / np.maximum(extra, 1e-12), -np.inf)
        layer, setting = np.unravel_index(rate.argmax(), rate.shape)
        places[layer] = setting


def _lowest_price(fits: Callable[[float], bool], halvings: int) -> float:
    """Return the lowest price at which the settings fit; the highest where they do at none."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < HIGHEST and not fits(high):
        low, high = high, 2 * high
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
