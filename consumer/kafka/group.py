"""The members of the group, as the coordinator describes them; asked on the client's own connections."""

from __future__ import annotations

import asyncio
import time

import structlog

from consumer.kafka.client_source import ClientSource
from consumer.kafka.failures import REQUEST_ERRORS, described
from consumer.kafka.positions import ANSWER_SECONDS
from consumer.logs import Sparingly
from consumer.observe.members import GroupDescription

log = Sparingly(structlog.get_logger("consumer.kafka"))

ASK_SECONDS = 30.0
AGAIN_SECONDS = 3.0
"""The same while the group is not stable."""
LOOK_SECONDS = 1.0
"""Seconds between two looks whether this member has joined a new generation."""


class Group:
    """Asks the coordinator for the group's members; owned by the daemon and as long-lived."""

    def __init__(self, source: ClientSource) -> None:
        self.description: GroupDescription | None = None
        """The last answer; None before the first."""
        self._source = source
        self._ask_at = 0.0
        self._asked_of = ("", -1)

    async def describe_forever(self) -> None:
        """Ask every ``ASK_SECONDS``, and when this member has joined a new generation."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            asked_of = (self._source.member_id, self._source.generation)
            if (
                self._source.client is not None
                and asked_of[1] >= 0
                and (time.monotonic() >= self._ask_at or asked_of != self._asked_of)
            ):
                self._asked_of = asked_of
                stable = await self._describe()
                self._ask_at = time.monotonic() + (ASK_SECONDS if stable else AGAIN_SECONDS)

    async def _describe(self) -> bool:
        """Ask once; return whether the group is stable, or cannot be described."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self.description = await self._source.describe()
        except (*REQUEST_ERRORS, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # any other comes from a task of the client
            log.info("group_not_described", why=described(error))
            return True
        return self.description.state == "Stable"
