"""Search spaces as a table. Nothing here needs torch."""

from collections.abc import Sequence

from rich.table import Table

from search_spaces import SearchSpace


def spaces_table(spaces: Sequence[SearchSpace]) -> Table:
    """Return a table of search spaces, one in a row."""
    table = Table()
    for heading in ("space", "model", "W", "A", "groups", "budget", "trials"):
        table.add_column(heading)
    for space in spaces:
        options = space.options
        table.add_row(
            space.name,
            space.model.name,
            _numbers(options.weight_bits),
            _numbers(options.activation_bits),
            _numbers(options.num_groups),
            f"{space.budget}, {space.max_size}" if space.max_size else str(space.budget),
            str(space.trials),
        )
    return table


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))
