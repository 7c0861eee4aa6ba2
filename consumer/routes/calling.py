"""Wrappers of handler calls: calls in a thread, and calls with a time limit."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
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

    def __init__(self, pool: ThreadPoolExecutor, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = call
        self._arguments = arguments
        self._began_at: float | None = None
        self._submitted = pool.submit(copy_context().run, self._run)
        self._ended = asyncio.wrap_future(self._submitted)

    def _run(self) -> Any:
        self._began_at = time.monotonic()
        try:
            return self._call(*self._arguments)
        except StopIteration as error:  # a future cannot hold it and would never complete
            raise RuntimeError("the handler raised StopIteration") from error

    def left(self, seconds: float) -> float:
        """Return what is left of the call's time; all of it while the call waits for a thread."""
        return seconds if self._began_at is None else self._began_at + seconds - time.monotonic()

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


def in_thread(call: Callable[..., Any], threads: int, seconds: float | None = None) -> Callable[..., Awaitable[Any]]:
    """Make a blocking function awaitable: each call runs in a thread of a separate pool of ``threads``.

    A call that takes longer than ``seconds`` in its thread raises CallTimeoutError when the thread has ended.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="session-consumer-handler")

    @functools.wraps(call)
    async def threaded(*arguments: Any) -> Any:
        threaded_call = ThreadedCall(pool, call, arguments)
        result = await threaded_call.result(seconds)
        if not inspect.isawaitable(result):
            return result
        return await result if seconds is None else await _limited(result, threaded_call.left(seconds))

    return threaded


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
