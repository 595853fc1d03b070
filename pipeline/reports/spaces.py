"""Search spaces as a table. Nothing here needs torch."""

from collections.abc import Sequence

from rich.table import Table

from search_spaces import SearchSpace


def spaces_table(spaces: Sequence[SearchSpace]) -> Table:
    """Return a table of search spaces, one in a row."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("space", "model", "bits", "groups", "budget", "trials"):
        table.add_column(heading, no_wrap=heading != "budget")
    for space in spaces:
        options = space.options
        table.add_row(
            space.name,
            space.model.name.partition(".")[0],  # its tag is in the YAML file
            f"W{_range(options.weight_bits)} A{_range(options.activation_bits)}",
            _range(options.num_groups),
            f"{space.budget}, {space.max_size}" if space.max_size else str(space.budget),
            str(space.trials),
        )
    return table


def _range(values: Sequence[int]) -> str:
    """Write the least and the most of some numbers."""
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"
