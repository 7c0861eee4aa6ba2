"""Waiting for a condition that the event loop brings about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


async def until(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Run the event loop until a condition holds; fail when it does not within ``seconds``.

    The first 500 rounds follow one another at once; later rounds wait 1 ms, so that a wait costs no processor time.
    """
    deadline = time.monotonic() + seconds
    rounds_left = 500
    while not holds():
        assert time.monotonic() < deadline, f"it did not hold within {seconds} s"
        rounds_left -= 1
        await asyncio.sleep(0 if rounds_left > 0 else 0.001)


async def rounds(count: int = 100) -> None:
    """Run the event loop for some rounds; whatever can begin without waiting has begun afterwards."""
    for _ in range(count):
        await asyncio.sleep(0)
