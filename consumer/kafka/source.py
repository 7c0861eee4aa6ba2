"""The source under the classic group protocol: aiokafka joins, sends heartbeats and commits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Collection, Mapping
from typing import Any, Literal

import aiokafka
import structlog
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.protocol.admin import DescribeGroupsRequest

from consumer.errors import ClientLostError, ConsumerError, KafkaError
from consumer.kafka.client import instance_id
from consumer.kafka.client_internals import fence_commits, note_heartbeats, watch_instance
from consumer.kafka.client_source import ClientSource
from consumer.kafka.failures import described
from consumer.kafka.group_descriptions import classic_description
from consumer.kafka.offsets import ClassicOffsets, Offsets
from consumer.observe.members import GroupDescription
from consumer.record import TopicPartition

log = structlog.get_logger("consumer.kafka")


class KafkaSource(ClientSource):
    """A member by the classic protocol: a rebalance takes all partitions and gives them back."""

    _rebalances: _Rebalances
    """Set with each client."""

    async def _join(self, consumer: Any) -> Offsets:
        """Join the group.

        aiokafka waits for an assignment without limit. A group that works assigns within a rebalance timeout, counted
        from the end of the session of a member that died.
        """
        self._rebalances = _Rebalances(self)
        consumer.subscribe(() if self._pattern else self._kafka.topics, self._pattern, listener=self._rebalances)
        seconds = self._kafka.session_timeout_seconds + self._kafka.rebalance_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await consumer.start()
        except TimeoutError as error:
            await self.stop()
            raise ClientLostError("group", f"no assignment came within {seconds:g} s of joining") from error
        note_heartbeats(consumer, self._still_member)
        fence_commits(consumer)
        if self._kafka.group_instance_id:
            watch_instance(consumer, self._is_member, self._taken_over)
        return ClassicOffsets(self._kafka, consumer)

    async def _leave(self, *, for_good: bool) -> None:  # noqa: ARG002 - aiokafka's stop leaves in any case
        """Hear of no rebalance any more; aiokafka's stop leaves."""
        self._rebalances.source = None

    @property
    def member_id(self) -> str:
        """Name of this member that the coordinator chose; empty until it has joined. Read from any thread."""
        consumer = self._consumer  # read once: the event loop may replace it
        coordinator = consumer._coordinator if consumer is not None else None
        return str(coordinator.member_id) if coordinator is not None else ""

    @property
    def generation(self) -> int:
        """Generation of the group in which this member is; negative while it is in none."""
        coordinator = self._consumer._coordinator if self._consumer is not None else None
        return int(coordinator.generation) if coordinator is not None else -1

    @property
    def session_seconds(self) -> float:
        """Seconds without a heartbeat after which the group removes this member."""
        return self._kafka.session_timeout_seconds

    def _is_member(self) -> bool:
        """Whether the group cannot have expelled this member because it was silent."""
        return time.monotonic() - self._member_at < self.session_seconds

    def _taken_over(self) -> None:
        self._over = True
        self._listener.doubt(doubtful=True)
        name = instance_id(self._kafka)
        self._fail(
            KafkaError(
                f"kafka.group_instance_id: another member with the id {name!r} has joined group"
                f" {self._kafka.group_id!r} and taken the partitions; give each daemon an id of its own, or stop one"
            )
        )

    @property
    def rebalancing(self) -> bool:
        """Whether this member waits for an assignment."""
        consumer = self._consumer  # read once: the watchdog calls this from its own thread
        if consumer is None or self._fetch is None:
            return True
        return bool(consumer._subscription.reassignment_in_progress)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next. It waits for unreachable brokers without limit, so the caller must bound it."""
        note, sent = self.notes.write() if self.notes is not None else "", time.monotonic()
        try:
            await self._consumer.commit(
                {aiokafka.TopicPartition(*key): (offset, note) for key, offset in offsets.items()}
            )
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("commit_fenced", why=type(error).__name__)
            return "fenced"
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # any other comes from a task of the client
            log.warning("commit_failed", why=described(error))
            return "failed"
        self._ends.heard(time.monotonic())
        self._still_member(sent)
        return "ok"

    async def describe(self) -> GroupDescription:
        """Ask the coordinator for the group's members."""
        consumer = self.client
        coordinator = consumer._coordinator.coordinator_id
        return classic_description(await consumer._client.send(coordinator, DescribeGroupsRequest([self.group_id])))

    async def revoked(self, keys: Collection[Any]) -> None:
        """Pass a revocation to the engine; returns when it has drained and committed."""
        lost = self._is_lost()
        self._revoked_at = time.monotonic()
        await self._stop_positions()
        self._note_revoked(len(keys), lost=lost)
        self._leaving = [TopicPartition(*key) for key in keys]
        try:
            await self._report_errors(self._listener.revoke(self._leaving, lost=lost))
        finally:
            self._note_slow(self._leaving, self._revoked_at)
            self._leaving = ()
        if self._fetch is not None:
            self._fetch.clear()

    def _is_lost(self) -> bool:
        """Whether the group has already reassigned the partitions, so that a commit would be wrong.

        aiokafka has no ``on_partitions_lost``.
        """
        return self.generation < 0

    async def assigned(self, keys: Collection[Any]) -> None:
        """Pass an assignment to the engine. It must be quick: heartbeats wait for it."""
        self._member_at = time.monotonic()
        if self._positions is not None:
            self._positions.start()
        await self._report_errors(self._assign([TopicPartition(*key) for key in keys]))

    async def _assign(self, keys: Collection[TopicPartition]) -> None:
        self._begin(keys)

    async def _report_errors(self, callback: Awaitable[None]) -> None:
        """Await a callback and report its errors; aiokafka would only log them and go on."""
        try:
            await callback
        except ConsumerError as error:
            self._fail(error)
        except Exception as error:
            self._fail(KafkaError(f"a rebalance failed: {described(error)}"))
            raise


class _Rebalances(ConsumerRebalanceListener):
    """Passes the rebalances of one client to the source, until the client is replaced."""

    def __init__(self, source: KafkaSource) -> None:
        self.source: KafkaSource | None = source

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        if self.source is not None:
            await self.source.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        if self.source is not None:
            await self.source.assigned(assigned)
