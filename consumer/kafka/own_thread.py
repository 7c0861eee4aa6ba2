"""Blocking work that may take long, each in a new thread: handlers use the event loop's pool of threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any


async def in_own_thread(name: str, work: Callable[[], Any]) -> Any:
    """Return what the work returns, or raise its error. Its thread ends with the process, even while it works."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any, error: Exception | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as failed:
            error = failed
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name=f"session-consumer-{name}", daemon=True).start()
    return await done
