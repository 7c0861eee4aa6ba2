"""How the process is asked to end: the first signal drains, a second one leaves at once, and nothing takes for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

from consumer.errors import StuckCallError

MARGIN_SECONDS = 10.0


class Signals:
    """Catches SIGTERM and SIGINT while it is entered; used by one command around its event loop's main task.

    They are caught by the interpreter, not by the event loop: a handler that blocks the loop must not be able to keep
    the process alive. ``drain_seconds`` + 10 after the first signal the process ends, whatever goes on.
    """

    def __init__(self, stop: Callable[[], object], drain_seconds: float) -> None:
        self._stop = stop
        self._limit = drain_seconds + MARGIN_SECONDS
        self._received = False
        self._previous: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._deadline is not None:
            self._deadline.cancel()

    def _receive(self, number: int, _frame: object) -> None:
        if self._received:
            _leave(128 + number, "a second signal: leaving at once; what was not committed will be delivered again")
        self._received = True
        self._deadline = threading.Timer(self._limit, self._give_up)
        self._deadline.daemon = True
        self._deadline.start()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop)

    def _give_up(self) -> None:
        _leave(StuckCallError.exit_code, f"the stop took longer than {self._limit:g} s: leaving without it")


def _leave(code: int, why: str) -> None:
    sys.stderr.write(f"session-consumer: {why}\n")
    sys.stderr.flush()
    os._exit(code)
