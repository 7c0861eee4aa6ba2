"""Positions: where a partition begins if its group has no offset, or if the broker no longer has that offset."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import aiokafka
import structlog
from aiokafka.errors import IllegalStateError

from consumer.kafka.client import position_of
from consumer.kafka.failures import REQUEST_ERRORS, described
from consumer.kafka.offsets import Offsets
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
UNRESOLVED = (*REQUEST_ERRORS, KeyError, AttributeError, IllegalStateError)
"""KeyError: the answer lacks the partition. AttributeError: aiokafka cannot say which error the answer holds."""


class Listener(Protocol):
    """The receiver of assignments, revocations and halts: the engine."""

    def assign(self, keys: Collection[TopicPartition]) -> None: ...
    def doubt(self, *, doubtful: bool) -> None: ...
    async def revoke(self, keys: Collection[TopicPartition] | None = None, *, lost: bool) -> None: ...
    def settles(self, key: TopicPartition) -> bool: ...
    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None: ...


class Fetched(Protocol):
    """The fetch path: what was fetched of each partition."""

    def holds(self, key: TopicPartition) -> bool:
        """Whether records of a partition were fetched that are not pulled yet."""

    def forget(self, key: TopicPartition) -> None:
        """Forget the position of a partition, so that the next chunk begins with the new one."""


class Unresolved(NamedTuple):
    """A partition without a usable offset."""

    gone: int | None
    """The offset that the broker no longer has; None if the group has none."""
    again_at: float = 0.0
    """Monotonic time before which it is not tried again."""


class Positions:
    """Sets the positions of the partitions of one client; owned by the source and as long-lived as the client.

    It works beside the polling, at one partition at a time, in a task that ``stop`` ends before any rebalance: what it
    does never meets another assignment.
    """

    def __init__(
        self,
        kafka: Kafka,
        consumer: Any,
        fetched: Fetched,
        listener: Listener,
        counters: Counters,
        offsets: Offsets,
    ) -> None:
        self._kafka = kafka
        self._offsets = offsets
        self._consumer = consumer
        self._fetched = fetched
        self._listener = listener
        self._counters = counters
        self._unresolved: dict[TopicPartition, Unresolved] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._current: TopicPartition | None = None
        """The partition that the task is at."""

    def __contains__(self, key: TopicPartition) -> bool:
        """Whether a partition has no usable offset now; its errors would only come again."""
        return key in self._unresolved

    async def stop(self) -> None:
        """Forget everything, and begin nothing until ``start``: the partitions are about to be revoked."""
        self._stopped = True
        task, self._task = self._task, None
        self._unresolved.clear()
        self._offsets.forget()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def drop(self, keys: Collection[TopicPartition]) -> None:
        """Forget some partitions, which are about to be revoked; the others are resolved on."""
        for key in keys:
            self._unresolved.pop(key, None)
        if self._task is not None and self._current in keys:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])

    def start(self) -> None:
        """Begin with nothing: partitions were assigned."""
        self._unresolved.clear()
        self._stopped = False

    def missing(self, key: TopicPartition) -> None:
        """Note that the group has no offset for a partition."""
        self._unresolved.setdefault(key, Unresolved(None))

    def gone(self, key: TopicPartition, offset: int) -> None:
        """Note that the broker no longer has a partition's next offset; nothing is fetched until it has another."""
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            self._consumer.pause(aiokafka.TopicPartition(*key))
            self._unresolved.setdefault(key, Unresolved(offset))

    def look(self) -> None:
        """Begin to resolve a partition, unless one is under way; raise what resolving the last one raised.

        A position is reset only once every record that was fetched has its outcome, and that is committed.
        """
        if self._stopped or (self._task is not None and not self._task.done()):
            return
        task, self._task = self._task, None
        if task is not None:
            task.result()
        if self._ready():
            self._task = asyncio.ensure_future(self._resolve_all())

    def _ready(self) -> list[tuple[TopicPartition, int | None]]:
        """Return the partitions whose position may be set now; each is asked, which makes it settle."""
        now = time.monotonic()
        return [
            (key, gone)
            for key, (gone, again_at) in self._unresolved.items()
            if now >= again_at and (gone is None or (self._listener.settles(key) and not self._fetched.holds(key)))
        ]

    async def _resolve_all(self) -> None:
        while ready := self._ready():
            for key, gone in ready:
                await self._resolve(key, gone)

    async def _resolve(self, key: TopicPartition, gone: int | None) -> None:
        if key not in self._unresolved:
            return  # dropped while another was resolved
        self._current = key
        try:
            await (self._begin(key) if gone is None else self._reset(key, gone))
        except UNRESOLVED as error:
            sparing.warning("offset_unresolved", partition=str(key), why=described(error))
            self._unresolved[key] = Unresolved(gone, time.monotonic() + AGAIN_SECONDS)
        else:
            self._unresolved.pop(key, None)
        finally:
            self._current = None

    async def _begin(self, key: TopicPartition) -> None:
        """Set the position of a partition for which the group has no offset, by ``kafka.offset_reset``, or halt it.

        aiokafka takes an answer that lacks the partition, or that says its topic is unknown, for "no offset". To act on
        that would skip records or repeat them all, so a second client asks first. The new offset is committed before
        the first record: otherwise a crash before the first commit would resolve "latest" again, and skip the records
        produced in between.
        """
        rule = self._kafka.offset_reset
        async with asyncio.timeout(ANSWER_SECONDS):
            offset = await self._offsets.committed(key)
        if self._has_position(key):
            return
        if offset < 0 and rule == "none":
            explanation = 'the group has no offset for this partition and kafka.offset_reset is "none"; commit one'
            self._listener.halt(key, HaltReason.NO_OFFSET, -1, explanation)
            return
        if offset < 0:
            offset = await self._move_to(key, "no_offset", rule)
        if not self._has_position(key):
            self._offsets.begin(key, offset)
            self._fetched.forget(key)

    def _has_position(self, key: TopicPartition) -> bool:
        """Whether aiokafka has found a position by itself.

        While the second client asks, or the new offset is committed, aiokafka may ask the group again, get an answer,
        and fetch. Records from there are handled by then, and to seek back would handle them twice.
        """
        return position_of(self._consumer, key) is not None

    async def _reset(self, key: TopicPartition, gone: int) -> None:
        """Begin a new epoch of a partition, by ``kafka.out_of_range``, or halt it."""
        rule, partition = self._kafka.out_of_range, aiokafka.TopicPartition(*key)
        if rule == "halt":
            explanation = f"the broker no longer has offset {gone}; reset the group's offset, or set kafka.out_of_range"
            self._listener.halt(key, HaltReason.OUT_OF_RANGE, gone, explanation)
            return
        offset = await self._move_to(key, "out_of_range", rule)
        await self._listener.revoke([key], lost=False)
        self._consumer.seek(partition, offset)
        self._consumer.resume(partition)
        self._fetched.forget(key)
        self._listener.assign([key])

    async def _move_to(self, key: TopicPartition, why: str, rule: str) -> int:
        """Find the offset that a rule names, and commit it."""
        partition = aiokafka.TopicPartition(*key)
        find = self._consumer.beginning_offsets if rule == "earliest" else self._consumer.end_offsets
        async with asyncio.timeout(ANSWER_SECONDS):
            offset = int((await find([partition]))[partition])
            await self._offsets.commit(key, offset)
        self._counters.offset_resets[key.topic, why] += 1
        log.info("offset_resolved", partition=str(key), why=why, rule=rule, offset=offset)
        return offset
