"""An allocation as a grid: a row for each block, a column for each place in it."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from igq import Layer, Setting
from igq.layer import block_and_place

BARS = "▁▂▃▄▅▆▇█"


def allocation_table(layers: Sequence[Layer], allocation: Mapping[str, Setting]) -> Table:
    """Return the setting of each layer as a table."""
    grid = block_grid(layers, allocation)
    columns = list(dict.fromkeys(place for row in grid.values() for place in row))
    most = max(map(weight_of, allocation.values()))
    bits = searches_bits(allocation.values())
    title = "Bits and groups of each layer" if bits else "Groups of each layer"
    table = Table(title=title, padding=(0, 1))
    table.add_column("block", justify="right")
    for column in columns:
        table.add_column(column, justify="right")
    for block, row in grid.items():
        cells = (_cell(row[column], most) if column in row else Text("") for column in columns)
        table.add_row(block, *cells)
    return table


def block_grid(
    layers: Sequence[Layer], allocation: Mapping[str, Setting]
) -> dict[str, dict[str, Setting]]:
    """Return block -> place in the block -> setting."""
    grid: dict[str, dict[str, Setting]] = {}
    for layer in layers:
        if layer.name in allocation:
            block, place = block_and_place(layer.name)
            grid.setdefault(block.removeprefix("blocks."), {})[place] = allocation[layer.name]
    return grid


def searches_bits(settings: Iterable[Setting]) -> bool:
    """Return whether any setting has bits."""
    return any(s.weight_bits or s.activation_bits for s in settings)


def weight_of(setting: Setting) -> int:
    """Return the height of a setting in a picture: the sum of its bits, or else its groups."""
    bits = (setting.weight_bits or 0) + (setting.activation_bits or 0)
    return bits or setting.num_groups or 1


def _cell(setting: Setting, most: int) -> Text:
    eighths = max(1, round(8 * weight_of(setting) / most))
    return Text(f"{setting!s:>3} {BARS[eighths - 1]}")
