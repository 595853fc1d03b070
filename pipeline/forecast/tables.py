"""A forecast in lines and a table, none wider than 80 characters."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.table import Table

from igq.costs import Number
from pipeline.forecast.forecast import Forecast, Workers
from pipeline.forecast.resources import size_of

DAY, HOUR, MINUTE = 86_400, 3_600, 60


def steps_table(forecast: Forecast) -> Table:
    """Return a table of the steps: the most passes of each, and about how long it takes."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("step", no_wrap=True)
    table.add_column("passes, at most", justify="right", no_wrap=True)
    table.add_column("about", justify="right", no_wrap=True)
    for step in forecast.steps:
        table.add_row(step.name, f"{step.passes:,}" if step.passes else "", time_of(step.seconds))
    table.add_section()
    name = "all" if forecast.studies == 1 else f"all, {forecast.studies} studies"
    table.add_row(name, f"{forecast.passes:,}", time_of(forecast.seconds))
    return table


def choices_lines(forecast: Forecast) -> Iterator[str]:
    """Yield what is searched: model, layers, settings, budget, images."""
    choices = forecast.choices
    kinds = ", ".join(f"{count} {kind}" for kind, count in choices.kinds.items())
    yield f"{forecast.space}: {forecast.model}, {forecast.bits}, weights: {forecast.weights}"
    yield f"Layers: {choices.layers} ({kinds})"
    settings = choices.settings
    shown = " ".join(settings if len(settings) <= 12 else (*settings[:5], "...", settings[-1]))
    yield (
        f"Choices: {choices.searched}, each of {len(settings)} settings ({shown}); "
        f"10^{choices.allocations_log10:.0f} allocations"
    )
    limits = ", ".join(f"{most:.4g} {unit}" for unit, most in forecast.limits.items())
    yield f"Budget: {forecast.budget}, which is {limits}"
    drawn = ", ".join(f"{one.images} {purpose}" for purpose, one in forecast.images.items())
    yield f"Images: {drawn}; from {', '.join({one.source: 0 for one in forecast.images.values()})}"
    yield from forecast.notes


def resources_lines(forecast: Forecast) -> Iterator[str]:
    """Yield who works, the memory and disk it takes, and where everything goes."""
    if forecast.ended:
        yield f"Already there: {forecast.ended} trials, and whatever the study's cache holds."
    if forecast.compiled:
        yield "Blocks are compiled: the first time takes up to half a minute more."
    needed = forecast.resources
    at_once = needed.corrections
    correcting = "the worker" if at_once == 1 else f"each of {at_once} workers"
    yield workers_line(forecast.workers)
    yield (
        f"Memory: about {size_of(needed.driver)} for this process, {size_of(needed.worker)} for "
        f"{correcting} that corrects weights, {size_of(needed.further)} for each other"
        f"{_left(needed.memory_left)}"
    )
    yield f"Disk: about {size_of(forecast.studies * needed.disk)}{_left(needed.disk_left)}"
    for name, place in forecast.places.items():
        yield f"{name}: {place}"


def workers_line(workers: Workers) -> str:
    """Say in how many processes trials run, and where.

    >>> workers_line(Workers(2, 1, None, 2))
    'Workers: 2 on this machine, each with 1 thread'
    >>> workers_line(Workers(2, 4, None, 2, held=True))
    'Workers: 2 on this machine, each with 4 threads; its free memory holds no more'
    >>> print(workers_line(Workers(6, 1, "head:6379", 6, nodes={"one": 4, "two": 2})))
    Workers: 6 of the cluster at head:6379, each with 1 thread; it has room on one (4), two (2). \
Times are as if its machines were like this one
    """
    threads = f"{workers.threads} thread{'s' * (workers.threads != 1)}"
    if workers.cluster is not None:
        nodes = ", ".join(f"{name} ({room})" for name, room in workers.nodes.items())
        return (
            f"Workers: {workers.count} of the cluster at {workers.cluster}, each with {threads}; "
            f"it has room on {nodes}. Times are as if its machines were like this one"
        )
    shared = "" if workers.at_once == workers.count else f", which share {workers.at_once} cores"
    held = "; its free memory holds no more" if workers.held else ""
    return f"Workers: {workers.count} on this machine, each with {threads}{shared}{held}"


def time_of(seconds: Number) -> str:
    """Write a time in the two units that matter.

    >>> [time_of(seconds) for seconds in (0.4, 75, 7290, 180_000)]
    ['1 s', '1 min 15 s', '2 h 1 min', '2 d 2 h']
    """
    whole = max(1, round(seconds))
    for unit, name, below, small in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _left(size: int | None) -> str:
    return "" if size is None else f" ({size_of(size)} free)"
