"""Drains of partitions that move: which of them wait for which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from consumer.record import TopicPartition
from consumer.settings.checks import AFTER_DRAIN_SECONDS

SLOW_CALL_SECONDS = 0.25
"""Age of a call under way from which on its partition is one that drains slowly."""


class Drains(NamedTuple):
    """What is known of a drain before it begins."""

    under_way: Callable[[TopicPartition], float]
    """Age in seconds of the oldest call of a partition that is under way; 0 without one."""
    seconds: float
    """Maximum time of a drain."""

    async def slow_first(
        self,
        keys: Collection[TopicPartition],
        within_seconds: float,
        drain: Callable[[Collection[TopicPartition]], Awaitable[None]],
    ) -> None:
        """Drain partitions that are acknowledged together: those that end soon go on until the slow ones have ended.

        They go on for as long as ``within_seconds`` leaves time for a drain of theirs.
        """
        slow = [key for key in keys if self.under_way(key) > SLOW_CALL_SECONDS]
        quick = [key for key in keys if key not in slow]
        if slow and quick:
            spare = within_seconds - self.seconds - 2 * AFTER_DRAIN_SECONDS
            first = asyncio.ensure_future(drain(slow))
            await asyncio.wait([first], timeout=max(0.0, spare))
            await asyncio.gather(drain(quick), first)
        else:
            await drain(keys)
