"""Positions: where a partition begins if its group has no offset, or if the broker no longer has that offset."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any, Protocol

import aiokafka
import structlog
from aiokafka.errors import IllegalStateError

from consumer.kafka.client import ClientError, described, open_admin
from consumer.logs import Sparingly
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")
sparing = Sparingly(log)

ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.2
"""Wait before a position that could not be resolved is asked for again."""
UNRESOLVED = (ClientError, OSError, TimeoutError, KeyError, AttributeError)
"""KeyError: the answer lacks the partition. AttributeError: aiokafka cannot say which error the answer holds."""


class Listener(Protocol):
    """The receiver of assignments, revocations and halts: the engine."""

    def assign(self, keys: Collection[TopicPartition]) -> None: ...
    async def revoke(self, keys: Collection[TopicPartition] | None = None, *, lost: bool) -> None: ...
    def settles(self, key: TopicPartition) -> bool: ...
    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None: ...


class Fetched(Protocol):
    """The fetch path: what was fetched of each partition."""

    def holds(self, key: TopicPartition) -> bool:
        """Whether records of a partition were fetched that are not pulled yet."""

    def forget(self, key: TopicPartition) -> None:
        """Forget the position of a partition; it is set anew."""


class Positions:
    """Sets the positions of the partitions of one client; owned by the source and as long-lived as the client."""

    def __init__(self, kafka: Kafka, consumer: Any, fetched: Fetched, listener: Listener, counters: Counters) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._fetched = fetched
        self._listener = listener
        self._counters = counters
        self._gone: dict[TopicPartition, int] = {}
        """Partitions whose next offset the broker no longer has, and that offset."""
        self._committed: dict[TopicPartition, int] = {}
        """Offsets of the group as a second client was told, -1 without one; each is used once."""

    def clear(self) -> None:
        """Forget everything: the partitions are revoked."""
        self._gone.clear()
        self._committed.clear()

    async def begin(self, key: TopicPartition) -> None:
        """Set the position of a partition for which the group has no offset, by ``kafka.offset_reset``, or halt it.

        aiokafka takes an answer that lacks the partition, or that says its topic is unknown, for "no offset". To act on
        that would skip records or repeat them all, so a second client asks first. The new offset is committed before
        the first record: otherwise a crash before the first commit would resolve "latest" again, and skip the records
        produced in between.
        """
        rule = self._kafka.offset_reset
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                offset = await self._ask_again(key)
                if offset < 0 and rule != "none":
                    offset = await self._find(key, rule)
                    await self._consumer.commit({aiokafka.TopicPartition(*key): offset})
                    self._note(key, "no_offset", rule, offset)
        except UNRESOLVED as error:
            await self._leave(key, error)
            return
        if offset < 0:
            explanation = 'the group has no offset for this partition and kafka.offset_reset is "none"; commit one'
            self._listener.halt(key, HaltReason.NO_OFFSET, -1, explanation)
            return
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            self._consumer.seek(aiokafka.TopicPartition(*key), offset)
            self._fetched.forget(key)

    def gone(self, key: TopicPartition, offset: int) -> None:
        """Note that the broker no longer has a partition's next offset; nothing is fetched until it has another."""
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            self._consumer.pause(aiokafka.TopicPartition(*key))
            self._gone[key] = offset

    async def look(self) -> None:
        """Reset, or halt, partitions whose offset is gone once every record that was fetched has its outcome."""
        for key, offset in list(self._gone.items()):
            if not self._fetched.holds(key) and self._listener.settles(key):
                await self._reset(key, offset)

    async def _reset(self, key: TopicPartition, gone: int) -> None:
        """Begin a new epoch of a partition, by ``kafka.out_of_range``, or halt it.

        A rebalance may come in between. Then the partition is no longer ours, or is already in its next epoch.
        """
        rule = self._kafka.out_of_range
        if rule == "halt":
            del self._gone[key]
            explanation = f"the broker no longer has offset {gone}; reset the group's offset, or set kafka.out_of_range"
            self._listener.halt(key, HaltReason.OUT_OF_RANGE, gone, explanation)
            return
        assignment = self._assignment()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                offset = await self._find(key, rule)
        except UNRESOLVED as error:
            await self._leave(key, error)
            return
        await self._listener.revoke([key], lost=False)
        if self._assignment() is not assignment:
            return
        partition = aiokafka.TopicPartition(*key)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._consumer.commit({partition: offset})
        except UNRESOLVED as error:
            await self._leave(key, error)
        else:
            self._gone.pop(key, None)
            self._note(key, "out_of_range", rule, offset)
        if self._assignment() is not assignment:
            return
        if key not in self._gone:
            self._consumer.seek(partition, offset)
            self._consumer.resume(partition)
        self._fetched.forget(key)
        self._listener.assign([key])

    def _assignment(self) -> Any:
        subscription = self._consumer._subscription.subscription
        return subscription.assignment if subscription is not None else None

    async def _ask_again(self, key: TopicPartition) -> int:
        """Return the group's offset as a second client is told, -1 without one; raise KeyError without an answer."""
        if key not in self._committed:
            async with open_admin(self._kafka) as admin:
                partitions = list(self._consumer.assignment())
                found = await admin.list_consumer_group_offsets(self._kafka.group_id, None, partitions)
            self._committed = {TopicPartition(*each): answer.offset for each, answer in found.items()}
        return self._committed.pop(key)

    async def _find(self, key: TopicPartition, rule: str) -> int:
        partition = aiokafka.TopicPartition(*key)
        find = self._consumer.beginning_offsets if rule == "earliest" else self._consumer.end_offsets
        return int((await find([partition]))[partition])

    def _note(self, key: TopicPartition, why: str, rule: str, offset: int) -> None:
        self._counters.offset_resets[key.topic, why] += 1
        log.info("offset_resolved", partition=str(key), why=why, rule=rule, offset=offset)

    async def _leave(self, key: TopicPartition, error: Exception) -> None:
        """Leave a partition without a position for now; it is looked at again."""
        sparing.warning("offset_unresolved", partition=str(key), why=described(error))
        await asyncio.sleep(AGAIN_SECONDS)
