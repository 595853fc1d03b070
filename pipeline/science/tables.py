"""The reproduction of the authors' table, as a table."""

from collections.abc import Collection, Sequence

from rich.table import Table

from pipeline.science.published import OTHERS
from pipeline.science.reproduction import Reproduced


def reproduction_table(cells: Sequence[Reproduced]) -> Table:
    """Return shares of top-1 kept: mean and spread over seeds, the authors' in brackets."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    table = Table(title="Top-1 kept of full precision's on the same images (the authors')")
    for heading in ("model", "bits", "images", "full precision", *columns):
        table.add_column(heading)
    rows: dict[tuple[str, int], dict[str, Reproduced]] = {}
    for cell in cells:
        rows.setdefault((cell.label, cell.bits), {})[cell.column] = cell
    for (label, bits), row in rows.items():
        first = next(iter(row.values()))
        shares = [_share(row[column]) if column in row else "" for column in columns]
        table.add_row(
            label, f"W{bits}A{bits}", str(first.images), f"{first.full_precision:.2%}", *shares
        )
    if cells:
        spread = f"± standard deviation over {len(cells[0].kept)} calibration seeds"
        table.caption = "\n".join([spread, *_others({(cell.label, cell.bits) for cell in cells})])
    return table


def _others(shown: Collection[tuple[str, int]]) -> list[str]:
    """Return a line for each method with published numbers of the rows shown."""
    return [
        f"{other.method} keeps {other.kept:.3f} of {other.label} at W{other.bits}A{other.bits}: "
        f"{other.takes}"
        for other in OTHERS
        if (other.label, other.bits) in shown
    ]


def _share(cell: Reproduced) -> str:
    spread = "" if cell.spread is None else f" ± {cell.spread:.3f}"
    published = "" if cell.published is None else f" ({cell.published:.3f})"
    return f"{cell.mean:.3f}{spread}{published}"
