"""Wrappers of handler calls: calls in a thread, and calls with a time limit."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from consumer.errors import CallTimeoutError


class ThreadedCall:
    """One call of a blocking function in a thread of a pool; lives until the thread has ended or was never begun.

    A thread cannot be cancelled, so a cancelled call ends only when its thread ends. Until then its record counts as in
    flight and no other call starts on it; a stop that cannot wait that long ends the process without it. A call that
    still waits for a free thread has not begun: its time does not run, and a cancelled one is never called.
    """

    def __init__(self, route: InThread, arguments: tuple[Any, ...]) -> None:
        self.began_at = math.inf
        """Time of the event loop, which is monotonic, at which a thread began it."""
        self._time = asyncio.get_running_loop().time
        self._route = route
        self._arguments = arguments
        self._submitted = route.pool.submit(copy_context().run, self._run)
        self._ended = asyncio.wrap_future(self._submitted)

    def _run(self) -> Any:
        self.began_at = self._route.last_began_at = self._time()
        self._route.running.add(self)
        try:
            return self._route.call(*self._arguments)
        except StopIteration as error:  # a future cannot hold it and would never complete
            raise RuntimeError("the handler raised StopIteration") from error
        finally:
            self._route.running.discard(self)

    def left(self, seconds: float) -> float:
        """Return what is left of the call's time; all of it while the call waits for a thread."""
        return seconds if math.isinf(self.began_at) else self.began_at + seconds - self._time()

    async def result(self, seconds: float | None) -> Any:
        """Wait for the thread; raise what it raised, or CallTimeoutError if it took longer than ``seconds``."""
        ended, late, cancelled = self._ended, False, None
        while not ended.done():
            left = None if seconds is None or late else self.left(seconds)
            if left is not None and left <= 0:
                late = True
                continue
            try:
                await asyncio.wait([ended], timeout=left)
            except asyncio.CancelledError as error:
                if self._submitted.cancel():
                    raise
                cancelled = cancelled if ended.done() else error
        if cancelled is None and not late:
            return ended.result()
        ended.exception()  # asyncio logs exceptions that nobody has read
        raise cancelled or CallTimeoutError


class InThread:
    """Runs each call of a blocking function in a thread of a pool; owned by its route."""

    def __init__(self, call: Callable[..., Any], threads: int, seconds: float | None = None) -> None:
        """``threads`` is the size of the pool. A call that takes longer than ``seconds`` raises CallTimeoutError."""
        functools.update_wrapper(self, call)
        self.call = call
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="session-consumer-handler")
        self.running: set[ThreadedCall] = set()
        """Calls that threads run now."""
        self.last_began_at: float | None = None
        self._seconds = seconds

    async def __call__(self, *arguments: Any) -> Any:
        """Call the function in a thread, and await what it returns if it is awaitable."""
        threaded_call = ThreadedCall(self, arguments)
        result = await threaded_call.result(self._seconds)
        if not inspect.isawaitable(result):
            return result
        return await result if self._seconds is None else await _limited(result, threaded_call.left(self._seconds))

    def running_since(self) -> float | None:
        """Return the monotonic time at which the oldest call began that a thread runs; or else the last that began."""
        return min((each.began_at for each in list(self.running)), default=self.last_began_at)


def within(call: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Limit the time of each call; a call that takes longer is cancelled and raises CallTimeoutError."""

    @functools.wraps(call)
    async def limited(*arguments: Any) -> Any:
        return await _limited(call(*arguments), seconds)

    return limited


async def _limited(call: Awaitable[Any], seconds: float) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError:
        if limit.expired():
            raise CallTimeoutError from None  # its cause is this limit, not a failure in the handler
        raise  # raised by the handler
