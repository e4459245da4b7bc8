"""A campaign that is asked to stop: by a queue before the end of the wall time, or at the keyboard."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from opengnome.errors import OpenGnomeError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What asks for a stop: SIGTERM is what queues send before they kill, SIGINT is Ctrl-C, and SIGUSR1 is for
``#SBATCH --signal=B:USR1@300``."""
EXIT_STOPPED = 75
"""Exit code of a campaign that was stopped: BSD's EX_TEMPFAIL, "try again later"."""


class StoppedError(OpenGnomeError):
    """The campaign was asked to stop. Everything finished is kept; the same command goes on."""

    exit_code = EXIT_STOPPED


class StopRequest:
    """Whether someone wants the campaign to stop, and how long what runs may go on."""

    def __init__(self, *, grace_s: float = 0.0, tell: Callable[[str], None] = lambda _: None) -> None:
        self.grace_s = grace_s
        """Seconds that running units are given to end by themselves."""
        self.tell = tell
        self.by = ""
        """Name of the signal; empty while nobody asked."""

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self.by != ""

    def refuse_more(self) -> None:
        """Raise `StoppedError` when a stop was asked for."""
        if self.is_asked:
            raise StoppedError(f"stopped by {self.by}; what is finished is kept, the same command goes on")


@contextmanager
def stopping(request: StopRequest) -> Iterator[StopRequest]:
    """Inside, `STOP_SIGNALS` are noted in `request`; a second one is a `KeyboardInterrupt`. An ignored signal stays so.

    Does nothing outside of the main thread, which alone gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        if request.is_asked:
            raise KeyboardInterrupt
        request.by = signal.Signals(number).name

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    watched = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in watched:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in watched:
            signal.signal(number, before[number])
