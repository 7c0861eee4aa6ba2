"""Wrappers of handler calls: calls in a thread, and calls with a time limit."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from consumer.errors import CallTimeoutError

THREADS = 64


def in_thread(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Make a blocking function awaitable: each call runs in a thread of a separate pool.

    A thread cannot be cancelled, so a cancelled call ends only when its thread ends. Until then its record counts as in
    flight and no other call starts on it; a stop that cannot wait that long ends the process without it.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="session-consumer-handler")

    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except StopIteration as error:  # a future cannot hold it and would never complete
            raise RuntimeError("the handler raised StopIteration") from error

    @functools.wraps(call)
    async def threaded(*arguments: Any) -> Any:
        future = asyncio.get_running_loop().run_in_executor(pool, copy_context().run, run, *arguments)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as error:
                if future.done():
                    break
                cancelled = error
            except BaseException:  # raised in the thread: future.result() raises it
                break
        if cancelled is not None:
            future.exception()
            raise cancelled
        result = future.result()
        return await result if inspect.isawaitable(result) else result

    return threaded


def within(call: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Limit the time of each call; a call that takes longer is cancelled and raises CallTimeoutError."""

    @functools.wraps(call)
    async def limited(*arguments: Any) -> Any:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call(*arguments)
        except TimeoutError:
            if limit.expired():
                raise CallTimeoutError from None  # its cause is this limit, not a failure in the handler
            raise  # raised by the handler

    return limited
