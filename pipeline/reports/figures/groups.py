"""Heat maps by block and by place in the block: settings of layers, and how much layers matter."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from igq import Layer, Setting
from igq.layer import block_and_place
from pipeline.reports.allocations import block_grid, searches_bits, weight_of
from pipeline.reports.figures.style import DARK, LIGHT, MAP, blank, titled
from pipeline.study.shape import kind_of

Cells = Mapping[str, Mapping[str, tuple[float, str]]]
"""Block -> place in the block -> value, and the words on it."""
SMALLEST = 1e-9
"""A sensitivity in nats that has a logarithm."""
LARGEST = 8
"""The size of words on cells that are wide enough, in points."""
ROOM = 400
"""Points of all columns side by side, over the width of a letter of size 1."""
MOST_COLUMNS = 18
"""Columns of all panels whose cells are wide enough for words."""


def draw_groups(layers: Sequence[Layer], allocations: Mapping[str, Mapping[str, Setting]]) -> Any:
    """Draw allocations by name beside each other: a row for each block."""
    panels = {name: _of_allocation(layers, chosen) for name, chosen in allocations.items()}
    bits = searches_bits(s for chosen in allocations.values() for s in chosen.values())
    return _panels(panels, "bits of weight and activation" if bits else "groups")


def draw_sensitivities(
    layers: Sequence[Layer], sensitivities: Mapping[str, Mapping[str, Mapping[Setting, float]]]
) -> Any:
    """Draw the KL that each layer costs at its cheapest setting, on a logarithmic scale."""
    panels = {name: _of_sensitivity(layers, table) for name, table in sensitivities.items()}
    return _panels(panels, "log10 of KL, nats")


def _of_allocation(layers: Sequence[Layer], allocation: Mapping[str, Setting]) -> Cells:
    grid = block_grid(layers, allocation)
    return {
        block: {place: (float(weight_of(setting)), str(setting)) for place, setting in row.items()}
        for block, row in grid.items()
    }


def _of_sensitivity(layers: Sequence[Layer], table: Mapping[str, Mapping[Setting, float]]) -> Cells:
    cells: dict[str, dict[str, tuple[float, str]]] = {}
    for layer in layers:
        if layer.name in table:
            block, place = block_and_place(layer.name)
            row = table[layer.name]
            value = max(row[min(row, key=weight_of)], SMALLEST)
            entry = (log10(value), f"{value:.0e}".replace("e-0", "e-"))
            cells.setdefault(block.removeprefix("blocks."), {})[place] = entry
    return cells


def _panels(panels: Mapping[str, Cells], label: str) -> Any:
    values = [v for cells in panels.values() for row in cells.values() for v, _ in row.values()]
    low, high = min(values), max(values)
    rows = max(map(len, panels.values()))
    figure, axes = blank(1.3 + 0.27 * rows, len(panels), share_y=True)
    axes = [axes] if len(panels) == 1 else list(axes)
    columns = sum(len(_places(cells)) for cells in panels.values())
    for one, (name, cells) in zip(axes, panels.items(), strict=True):
        mesh = _heat_map(one, cells, low, high if high > low else low + 1)
        if columns <= MOST_COLUMNS:
            _write_words(one, cells, (low, high), ROOM / columns)
        one.set_title(name, fontsize="medium")
    axes[0].set_ylabel("block")
    figure.colorbar(mesh, ax=axes, label=label, shrink=0.9)
    return figure


def _heat_map(axes: Any, cells: Cells, low: float, high: float) -> Any:
    places, nothing = _places(cells), float("nan")
    values = [[row.get(p, (nothing, ""))[0] for p in places] for row in cells.values()]
    mesh = axes.pcolormesh(values, cmap=MAP, vmin=low, vmax=high, edgecolors="none")
    titled(mesh, [f"block {b}, {p}: {row.get(p, (low, 'none'))[1]}" for b, row in cells.items()
                  for p in places])  # fmt: skip
    names = [kind_of(place) for place in places]
    axes.set_xticks([x + 0.5 for x in range(len(places))], names, rotation=60, fontsize=8)
    axes.set_yticks([y + 0.5 for y in range(len(cells))], list(cells), fontsize=8)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    return mesh


def _write_words(axes: Any, cells: Cells, ends: tuple[float, float], room: float) -> None:
    """Write words on cells that have room for so many points of letters of size 1."""
    low, high = ends
    for y, row in enumerate(cells.values()):
        for x, place in enumerate(_places(cells)):
            value, words = row.get(place, (low, ""))
            ink = LIGHT if 2 * value < low + high else DARK
            size = min(LARGEST, room / max(len(words), 1))
            axes.text(x + 0.5, y + 0.5, words, ha="center", va="center", color=ink, fontsize=size)


def _places(cells: Cells) -> list[str]:
    return list(dict.fromkeys(place for row in cells.values() for place in row))
