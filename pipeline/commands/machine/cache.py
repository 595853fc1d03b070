"""The results that studies share: where they lie, which there are, and how to clear them."""

import os
import time
from pathlib import Path

from pipeline.errors import StudyError
from pipeline.preparation.parts.shared import Entry, entries, remove

VARIABLE = "IGQ_CACHE"
"""Names the folder; empty: studies share nothing."""
DAY = 86_400.0


def shared_folder() -> Path | None:
    """Return the folder of results that studies share; None where they share none.

    It is IGQ_CACHE, or else `igq` in the user's cache folder (XDG_CACHE_HOME, ~/.cache).
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).expanduser().absolute() if named else None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "igq"


def shared_results() -> list[Entry]:
    """Return the results that studies share, the latest first.

    >>> shared_results()
    []
    """
    folder = shared_folder()
    return [] if folder is None else entries(folder)


def clear_shared(older: float = 0.0) -> list[Entry]:
    """Remove the shared results that are at least `older` days old; return them.

    A study keeps its own. A search that is about to read one computes it again.

    Raises:
        StudyError: `older` is below 0, or one cannot be removed.

    >>> clear_shared(older=30.0)
    []
    """
    if older < 0:
        raise StudyError(f"`older` must be 0 days or more, but got {older:g}.")
    gone = [entry for entry in shared_results() if age_of(entry) >= older * DAY]
    for entry in gone:
        try:
            remove(entry.path)
        except OSError as error:
            raise StudyError(f"{entry.path} could not be removed: {error.strerror}.") from error
    return gone


def age_of(entry: Entry) -> float:
    """Return how many seconds ago an entry was made."""
    return max(0.0, time.time() - entry.made)
