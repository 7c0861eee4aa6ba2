"""Ways to call a handler other than plainly: in a thread, within a time."""

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
    """Make a blocking function awaitable: each call runs in a thread of a pool of its own.

    A thread cannot be cancelled. So a call that is cancelled ends only when its thread has: until then its record is
    in work, nobody else starts on it, and a stop that cannot wait that long leaves the process without it.
    """
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="session-consumer-handler")

    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except StopIteration as error:  # a future cannot hold it, and would never be done
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
            except BaseException:  # the thread's own: future.result() raises it
                break
        if cancelled is not None:
            future.exception()
            raise cancelled
        result = future.result()
        return await result if inspect.isawaitable(result) else result

    return threaded


def within(call: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Give each call a time limit; past it the call is cancelled and CallTimeoutError raised."""

    @functools.wraps(call)
    async def limited(*arguments: Any) -> Any:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call(*arguments)
        except TimeoutError as error:
            if limit.expired():
                raise CallTimeoutError from error
            raise  # the handler's own

    return limited
