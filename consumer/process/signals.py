"""SIGTERM and SIGINT: the first signal drains, a second one exits at once, and a stop has a time limit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from consumer.errors import StuckCallError

MARGIN_SECONDS = 10.0


class Signals:
    """Catches SIGTERM and SIGINT while it is entered; a command enters it around its event loop's main task.

    The interpreter catches the signals, not the event loop: a handler that blocks the loop must not be able to keep the
    process alive. ``drain_seconds`` + 10 s after the first signal the process ends in any case.
    """

    def __init__(self, stop: Callable[[], object], drain_seconds: float) -> None:
        self._stop = stop
        self._limit = drain_seconds + MARGIN_SECONDS
        self._received = False
        self._previous: dict[int, Any] = {}
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> Self:
        receive = partial(self._receive, asyncio.get_running_loop())
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._deadline is not None:
            self._deadline.cancel()

    def _receive(self, loop: asyncio.AbstractEventLoop, number: int, _frame: object) -> None:
        if self._received:
            _leave(128 + number, "a second signal: exiting at once; records not committed will be delivered again")
        self._received = True
        self._deadline = threading.Timer(self._limit, self._give_up)
        self._deadline.daemon = True
        self._deadline.start()
        loop.call_soon_threadsafe(self._stop)

    def _give_up(self) -> None:
        _leave(StuckCallError.exit_code, f"the stop took longer than {self._limit:g} s: exiting at once")


def _leave(code: int, why: str) -> None:
    sys.stderr.write(f"session-consumer: {why}\n")
    sys.stderr.flush()
    os._exit(code)
