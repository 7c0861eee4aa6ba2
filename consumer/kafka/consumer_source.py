"""The source under the consumer group protocol (KIP-848): the membership is ours, aiokafka's fetcher reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import structlog

from consumer.errors import ClientLostError, KafkaError
from consumer.kafka.client import instance_id
from consumer.kafka.client_internals import has_ended
from consumer.kafka.client_source import ClientSource
from consumer.kafka.coordinator import UNANSWERED, Coordinator
from consumer.kafka.group_configs import SESSION, group_configs
from consumer.kafka.group_descriptions import consumer_description
from consumer.kafka.group_errors import NOT_SPOKEN
from consumer.kafka.group_offsets import GroupOffsets, StartOffsets
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings
from consumer.kafka.in_place import InPlace
from consumer.kafka.membership import JOIN, Membership, Subscription
from consumer.kafka.offsets import Offsets
from consumer.kafka.reconciliation import Reconciliation
from consumer.kafka.topic_ids import TopicIds
from consumer.kafka.wire_questions import DescribeRequest, TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest
from consumer.observe.members import GroupDescription
from consumer.observe.members import Membership as MemberState
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

SESSION_SECONDS = 45.0
"""The brokers' default, assumed where the group's configuration cannot be read."""
AGAIN_SECONDS = 0.2
NEEDED = (HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest, TopicsRequest)


class _Parts(NamedTuple):
    """What belongs to one client."""

    coordinator: Coordinator
    holdings: Holdings
    heartbeats: Heartbeats
    beating: asyncio.Task[None]
    offsets: GroupOffsets
    in_place: InPlace


class ConsumerSource(ClientSource):
    """A member by the consumer group protocol: a rebalance stops only the partitions that move.

    The member id lives as long as the source, through all its clients.
    """

    _parts: _Parts | None = None
    _reconciliation: Reconciliation | None = None
    _member: Membership | None = None
    _session_seconds = SESSION_SECONDS

    @property
    def member(self) -> Membership:
        """This member's state; made when it is first asked for."""
        if self._member is None:
            self._member = Membership(_subscription(self._kafka))
        return self._member

    async def _join(self, consumer: Any) -> Offsets:
        await consumer.start()
        in_place = InPlace(consumer)
        consumer._client.set_topics(self._kafka.topics)
        coordinator, holdings = Coordinator(consumer._client, self._kafka.group_id), Holdings()
        self.member.begin(time.monotonic())
        heartbeats = Heartbeats(self._kafka, self.member, coordinator, holdings)
        seconds = self._session_seconds + self._kafka.rebalance_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await _require_spoken(coordinator)
                configs = await group_configs(coordinator, self._kafka.group_id)
                self._session_seconds = heartbeats.session_seconds = configs.get(SESSION, SESSION_SECONDS)
                beating = asyncio.create_task(heartbeats.run(), name="heartbeats")
                offsets = GroupOffsets(self._kafka.group_id, self.member, coordinator, heartbeats, holdings)
                self._parts = _Parts(coordinator, holdings, heartbeats, beating, offsets, in_place)
                first: list[asyncio.Future[Any]] = [heartbeats.joined, heartbeats.ended]
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            await self.stop()
            raise ClientLostError("group", f"the group did not answer within {seconds:g} s of joining") from error
        if heartbeats.ended.done():
            raise heartbeats.ended.result()
        heartbeats.ended.add_done_callback(self._ends_with)
        return StartOffsets(offsets, in_place)

    def _connected(self, consumer: Any) -> None:
        parts = self._parts
        if parts is not None:
            topic_ids = TopicIds(consumer._client)
            self._reconciliation = Reconciliation(self.member, parts.heartbeats, parts.holdings, topic_ids, self)
            self._reconciliation.step()

    def _ends_with(self, ended: asyncio.Future[KafkaError]) -> None:
        """End the daemon: this member has ended, and nothing more may be started or committed."""
        if not ended.cancelled():
            self._listener.doubt(doubtful=True)
            self.fail(ended.result())

    async def _leave(self) -> None:
        parts, self._parts = self._parts, None
        if self._reconciliation is not None:
            await self._reconciliation.stop()
            self._reconciliation = None
        if parts is not None:
            parts.beating.cancel()
            await asyncio.wait([parts.beating])
            await parts.heartbeats.leave()

    def _ended(self) -> str | None:
        beating = self._parts.beating if self._parts is not None else None
        return has_ended("heartbeat", beating) or super()._ended()

    def _is_lost(self) -> bool:
        return self.member.epoch == JOIN

    @property
    def rebalancing(self) -> bool:
        """Whether this member is in no group: it joins, for the first time or because it was thrown out."""
        return self._fetch is None or self.member.epoch == JOIN

    @property
    def member_id(self) -> str:
        """Name that this member gave itself. Read from any thread."""
        return self.member.member_id

    @property
    def generation(self) -> int:
        """Epoch of this member; negative while it is in no group."""
        return self.member.epoch if self.member.epoch > JOIN else -1

    @property
    def session_seconds(self) -> float:
        """Seconds without a heartbeat after which the group removes this member, as its configuration says."""
        return self._session_seconds

    @property
    def _alive_at(self) -> float:
        return max(self._member_at, self.member.heard_at)

    @property
    def _waits_since(self) -> float:
        return max(self._revoked_at, self.member.out_since)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets of partitions that are owned still, under the epoch of each attempt."""
        parts = self._parts
        if parts is None:
            log.warning("commit_failed", why="no client is connected")
            return "failed"
        result = await parts.offsets.commit(offsets, self.notes.write() if self.notes is not None else "")
        if result == "ok":
            self._ends.heard(time.monotonic())
        return result

    @property
    def membership(self) -> MemberState:
        """This member as it knows itself. Read from any thread."""
        return super().membership._replace(answered_at=self.member.answered_at)

    def _revoking(self) -> Collection[TopicPartition]:
        reconciliation = self._reconciliation  # read once: the event loop may replace it
        return tuple(reconciliation.draining) if reconciliation is not None else ()

    def moved(self, phase: Literal["revoked", "assigned"], seconds: float, count: int) -> None:
        """Note how long partitions stood still in one half of their move."""
        self._counters.moves[phase].observe(seconds, count)

    async def describe(self) -> GroupDescription:
        """Ask the coordinator for the group's members."""
        if self._parts is None:
            raise KafkaError("no client is connected")
        return consumer_description(await self._parts.coordinator.send(DescribeRequest([self.group_id], False)))

    async def let_go(self, keys: Collection[TopicPartition], *, lost: bool) -> None:
        """Drain and commit partitions, or drop them if they are lost."""
        if self._positions is not None:
            await self._positions.drop(keys)
        began = time.monotonic()
        self._note_revoked(len(keys), lost=lost)
        await self._listener.revoke(list(keys), lost=lost)
        self._note_slow(keys, began)
        parts, fetch = self._parts, self._fetch
        if parts is not None and fetch is not None:
            for key in keys:
                parts.in_place.hide(key)
                fetch.forget(key)

    async def starts(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return where the partitions begin whose topics are read; the brokers' pattern may match others."""
        read = [key for key in keys if self._pattern is None or self._pattern.match(key.topic)]
        return await self._parts.offsets.committed(read) if self._parts is not None and read else {}

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """Have partitions fetched; where the group has no offset, its start is found first."""
        parts, fetch, positions = self._parts, self._fetch, self._positions
        if parts is None or fetch is None or positions is None:
            return
        for key, offset in starts.items():
            self._consumer._client.add_topic(key.topic)
            fetch.forget(key)
            if offset >= 0:
                parts.in_place.show(key, offset)
            else:
                parts.in_place.know(key)
                positions.missing(key)
        if starts:
            self._begin(starts)

    def fail(self, error: Exception) -> None:
        """End the daemon."""
        self._fail(error)


def _subscription(kafka: Kafka) -> Subscription:
    return Subscription(
        kafka.group_id,
        instance_id(kafka),
        int(kafka.rebalance_timeout_seconds * 1000),
        None if kafka.topic_pattern else sorted(kafka.topics),
        kafka.topic_pattern or None,
        kafka.group_remote_assignor or None,
    )


async def _require_spoken(coordinator: Coordinator) -> None:
    """Raise KafkaError when the coordinator lacks a request; wait for one that does not answer."""
    while True:
        try:
            versions = await coordinator.versions()
        except UNANSWERED:
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        if missing := [each.__name__ for each in NEEDED if not each.spoken(versions)]:
            raise KafkaError(f"{NOT_SPOKEN} (they lack {', '.join(missing)})")
        return
