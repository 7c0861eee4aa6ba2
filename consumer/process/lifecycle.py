"""What the daemon and a redrive have in common: loops whose errors drain everything, and calls that would not end."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import structlog

from consumer.delivery.engine import Engine
from consumer.errors import StuckCallError, place_of

log = structlog.get_logger("consumer.process.lifecycle")


async def guarded(loop: Callable[[], Awaitable[None]], fail: Callable[[Exception], None]) -> None:
    """Run one loop for as long as it goes; what it raises is told to ``fail``, where the task group would kill all."""
    try:
        await loop()
    except Exception as error:
        log.debug("loop_failed", error=place_of(error))
        fail(error)


def exit_if_stuck(engine: Engine) -> None:
    """End the process at once when a call outlived its cancellation: no task group could ever be left."""
    if engine.stuck_calls:
        log.error("exit_forced", stuck_calls=engine.stuck_calls, exit_code=StuckCallError.exit_code)
        sys.stderr.flush()
        os._exit(StuckCallError.exit_code)
