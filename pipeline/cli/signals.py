"""Ctrl-C, SIGTERM and SIGHUP: the first asks a command to end, the second ends it at once.

Ray, which the signal may interrupt anywhere, only understands a `KeyboardInterrupt`; so all raise
it, and which of them it was is remembered here.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE = 8.0
"""Seconds that a command has to end if it was not Ctrl-C: schedulers kill it soon (our choice)."""
ALWAYS = {signal.SIGINT, signal.SIGTERM}
"""Signals that end a command even where they were ignored before, as shells do by `&`."""
WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
"""Signals that end a command, and the word for each."""
if hasattr(signal, "SIGHUP"):  # a terminal that was closed
    WORDS[signal.SIGHUP] = "Hung up"
SHOW_CURSOR = "\x1b[?25h"
"""Bars hide it."""


class Stopping:
    """The signal that a command was told to end with, and how it ends then."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self.to_go_on: str | None = None
        """The command line that takes up the work again, where there is one."""

    @property
    def asked(self) -> bool:
        """Whether any signal came."""
        return self._received is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Raise a KeyboardInterrupt; the second time, end at once."""
        if self.asked:
            self.end()
        self._received = signal.Signals(number)
        if self._received is not signal.SIGINT:
            timer = threading.Timer(PATIENCE, self.end)
            timer.daemon = True
            timer.start()
        raise KeyboardInterrupt

    def end(self) -> None:
        """Say so in a line and end, cleaned up or not: a study is whole on disk at any time.

        The exit code is that of shells: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
        """
        number = self._received or signal.SIGINT
        word = WORDS[number]
        line = f"{word}. To go on: {self.to_go_on}" if self.to_go_on else f"{word}."
        shown = SHOW_CURSOR if os.isatty(2) else ""
        with suppress(OSError):  # the terminal may be gone; a thread may hold Python's own lock
            os.write(2, f"{shown}{line}\n".encode())
        os._exit(128 + number)


stopping = Stopping()
"""Of this process: signals come to all of it."""


@contextmanager
def catching_signals() -> Iterator[None]:
    """Have signals end the command in its own way while it runs; `nohup` ignores SIGHUP."""
    handlers = {number: signal.getsignal(number) for number in WORDS}
    before = {n: h for n, h in handlers.items() if n in ALWAYS or h is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stopping.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
