"""Waiting for something that the event loop brings about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Go round the event loop until something holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0)


async def rounds(count: int = 100) -> None:
    """Let the event loop go round: whatever could begin without waiting for anything has begun afterwards."""
    for _ in range(count):
        await asyncio.sleep(0)
