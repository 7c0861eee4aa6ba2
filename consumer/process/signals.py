"""Signals: the first SIGTERM or SIGINT drains, a second one exits at once, and a stop has a time limit."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from consumer.errors import StuckCallError
from consumer.process.children import keep_sockets_from_children, reset_signals_in_children

STOPS = (signal.SIGTERM, signal.SIGINT)
MARGIN_SECONDS = 10.0
WRITE_SECONDS = 1.0
END_SECONDS = 5.0
"""How long the process may take to end after its work."""
SECOND = "a second signal: exiting at once; records not committed will be delivered again"


class Signals:
    """Catches signals while it is entered; a command enters it around its event loop's main task.

    The interpreter catches the signals, not the event loop: a handler that blocks the loop must not be able to keep the
    process alive. ``drain_seconds`` + 10 s after the first SIGTERM or SIGINT the process ends in any case. Children
    that are forked meanwhile have the default handlers, and none of the event loop's sockets.
    """

    def __init__(
        self,
        stop: Callable[[], object],
        drain_seconds: float,
        others: Mapping[int, Callable[[], object]] | None = None,
    ) -> None:
        """``others`` are called at signals that end nothing, between any two steps of the main thread."""
        self._stop = stop
        self._limit = drain_seconds + MARGIN_SECONDS
        self._others = others or {}
        self._begun = self._received = False
        self._previous: dict[int, Any] = {}
        self._deadline: threading.Timer | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        keep_sockets_from_children(self._loop)
        reset_signals_in_children(lambda: iter(list(self._previous)))
        for number in STOPS:
            self._previous[number] = signal.signal(number, self._receive)
        for other in self._others:
            self._previous[other] = signal.signal(other, self._call)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._deadline is not None:
            self._deadline.cancel()

    def begin(self) -> None:
        """Begin the stop as the first signal does, unless it has begun; may be called from any thread."""
        if self._begun:
            return
        self._begun = True
        self._loop.call_soon_threadsafe(self._stop)
        self._deadline = threading.Timer(self._limit, self._give_up)
        if not _started(self._deadline):
            self._loop.call_soon_threadsafe(self._loop.call_later, self._limit, self._give_up)

    def _receive(self, number: int, _frame: object) -> None:
        if self._received:
            leave(128 + number, SECOND)
        self._received = True
        self.begin()

    def _call(self, number: int, _frame: object) -> None:
        self._others[number]()

    def _give_up(self) -> None:
        leave(StuckCallError.exit_code, f"the stop took longer than {self._limit:g} s: exiting at once")


def end_nothing(numbers: Sequence[int]) -> None:
    """Catch signals and do nothing. Ignored ones would stay ignored in every program that a handler starts."""
    reset_signals_in_children(lambda: iter(numbers))
    for number in numbers:
        signal.signal(number, lambda *_: None)


def end_at_once() -> None:
    """End the process with 0 at a first SIGTERM or SIGINT, until ``end_as_usual``: nothing has begun."""

    def end(*_: object) -> None:
        os._exit(0)

    reset_signals_in_children(lambda: (each for each in STOPS if signal.getsignal(each) is end))
    for each in STOPS:
        signal.signal(each, end)


def end_as_usual() -> None:
    """Have SIGTERM and SIGINT do what they do in any Python program; ``Signals`` then catches them."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ended_in_time() -> Iterator[None]:
    """End the process ``END_SECONDS`` after the block, with the block's exit code, if it has not ended by then.

    The interpreter waits for threads, and the last lines wait for a reader of stderr, possibly for ever.
    """
    code = 1
    try:
        yield
        code = 0
    except BaseException as error:
        code = getattr(error, "exit_code", code)
        raise
    finally:
        why = f"the process did not end within {END_SECONDS:g} s of its work: exiting at once"
        _started(threading.Timer(END_SECONDS, leave, (code, why)))


def _started(timer: threading.Timer) -> bool:
    """Start a timer that keeps no process; return False if the system has no thread left for it."""
    timer.daemon = True
    with contextlib.suppress(RuntimeError):
        timer.start()
        return True
    return False


def leave(code: int, why: str) -> None:
    """End the process. The last line is written by another thread: nobody may read stderr, and that must not matter."""
    written = threading.Event()

    def write() -> None:
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"session-consumer: {why}\n".encode())
        written.set()

    with contextlib.suppress(RuntimeError):  # the system has no thread left
        _thread.start_new_thread(write, ())  # takes no lock that the interrupted code may hold, as Thread.start does
        written.wait(WRITE_SECONDS)
    os._exit(code)
