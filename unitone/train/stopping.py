"""A polite end: the first SIGTERM or SIGINT is a wish, the second interrupts at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether somebody wishes this process to end."""

    def __init__(self) -> None:
        self.wanted = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as wishes, where this is the main thread; others can't."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
