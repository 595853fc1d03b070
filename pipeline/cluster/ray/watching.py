"""A watch on the connected cluster: how much room it has, and whether its head is still there.

Ray waits a minute for a head that has died, then ends the process. So a thread of its own asks the
cluster, and whoever runs work reads the answers, which never blocks.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.cluster.ray.joining import check_head

LOOK_SECONDS = 1.0
"""Between two looks at the cluster."""
STALE_SECONDS = 5.0
"""After which an answer that does not come is a reason to look at the head oneself."""


class Watch:
    """The room on a cluster as it was a moment ago."""

    def __init__(self, room: Callable[[], int], lost: Callable[[Exception], None]) -> None:
        self._ask, self._lost = room, lost
        self._known, self._looked = room(), time.monotonic()
        self._error: Exception | None = None
        self._ended = threading.Event()

    def room(self) -> int:
        """Return how many trials may run at once.

        Raises:
            ClusterError: the head is gone.
        """
        self.check()
        return self._known

    def check(self) -> None:
        """Check that the head is there, as far as is known.

        Raises:
            ClusterError: it is gone.
        """
        if self._error is not None:
            raise self._error
        if time.monotonic() - self._looked > STALE_SECONDS:
            check_head()

    def look(self) -> None:
        """Ask the cluster again and again, until the watch ends or there is no cluster."""
        while not self._ended.wait(LOOK_SECONDS):
            try:
                check_head()
                self._known = self._ask()
            except Exception as error:  # it is raised where the answer is read
                self._error = error
                self._lost(error)
                return
            self._looked = time.monotonic()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


@contextmanager
def watched(
    room: Callable[[], int], lost: Callable[[Exception], None] = lambda error: None
) -> Iterator[Watch]:
    """Watch the connected cluster, with a function that counts its room.

    `lost` hears of a head that is gone when the watch does, in its thread.
    """
    watch = Watch(room, lost)
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join(LOOK_SECONDS)  # it may wait for a head that is gone
