"""The table of an exported model's latencies."""

from rich.table import Table

from pipeline.evaluation.latency import Benchmark


def latency_table(measured: Benchmark) -> Table:
    """Return a table with a line for each form and size of batch."""
    table = Table(title=measured.processor, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("form", no_wrap=True)
    for heading in ("batch", "ms", "quartiles", "speed", "MB", "load", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in measured.rows:
        table.add_row(
            row.name,
            str(row.batch),
            f"{row.milliseconds:.1f}",
            f"{row.low:.1f}-{row.high:.1f}",
            f"{row.speed:.2f}",
            "" if row.megabytes is None else f"{row.megabytes:.1f}",
            f"{row.load_seconds:.3f}" if row.load_seconds else "",
            "" if row.peak_megabytes is None else f"{row.peak_megabytes:.0f}",
        )
    runtime = measured.target or "not compiled"
    table.caption = (
        f"threads: {measured.threads}, medians of {measured.rounds} rounds in turns; speed: times "
        f"as fast as {measured.baseline}; load: seconds; igq's runtime: {runtime}"
    )
    return table
