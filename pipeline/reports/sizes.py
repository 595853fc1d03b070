"""Sizes and ages in words."""

_UNITS = (("days", 86_400), ("h", 3600), ("min", 60))


def megabytes(size: int) -> str:
    """Return a size in MB.

    >>> megabytes(31_400_000), megabytes(900)
    ('31.4 MB', '0.0 MB')
    """
    return f"{size / 1e6:.1f} MB"


def age(seconds: float) -> str:
    """Return an age in its largest unit.

    >>> age(5.0), age(150.0), age(9000.0), age(200_000.0)
    ('5 s', '2 min', '2 h', '2 days')
    """
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
