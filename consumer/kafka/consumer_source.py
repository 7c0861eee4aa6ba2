"""The source under the consumer group protocol (KIP-848): the membership is ours, aiokafka's fetcher reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from consumer.errors import ClientLostError, KafkaError
from consumer.kafka.client_internals import has_ended
from consumer.kafka.client_source import ClientSource, early
from consumer.kafka.coordinator import Coordinator
from consumer.kafka.group_configs import SESSION_SECONDS, group_session
from consumer.kafka.group_descriptions import consumer_description
from consumer.kafka.group_offsets import GroupOffsets, StartOffsets
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings
from consumer.kafka.in_place import InPlace
from consumer.kafka.joining import require_spoken, subscription_of
from consumer.kafka.membership import JOIN, Membership
from consumer.kafka.offsets import Offsets
from consumer.kafka.reconciliation import Reconciliation
from consumer.kafka.topic_ids import TopicIds
from consumer.kafka.wire_questions import DescribeRequest
from consumer.observe import members
from consumer.observe.members import GroupDescription
from consumer.record import TopicPartition


class _Parts(NamedTuple):
    """What belongs to one client."""

    coordinator: Coordinator
    holdings: Holdings
    heartbeats: Heartbeats
    beating: asyncio.Task[None]
    offsets: GroupOffsets
    in_place: InPlace


class ConsumerSource(ClientSource):
    """A member by the consumer group protocol, which keeps its id: a rebalance stops only the partitions that move."""

    _parts: _Parts | None = None
    _reconciliation: Reconciliation | None = None
    _member: Membership | None = None
    _session_seconds = SESSION_SECONDS
    _stopped_at: Mapping[TopicPartition, float] = {}
    """Monotonic time at which each partition was stopped of which the group does not know yet."""

    @property
    def member(self) -> Membership:
        """This member's state; made when it is first asked for."""
        if self._member is None:
            self._member = Membership(subscription_of(self._kafka))
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
                await require_spoken(coordinator, self._kafka)
                seconds_known = await group_session(coordinator, self._kafka.group_id, self._session_seconds)
                self._session_seconds = heartbeats.session_seconds = seconds_known
                beating = asyncio.create_task(heartbeats.run(), name="heartbeats")
                offsets = GroupOffsets(self._kafka.group_id, self.member, coordinator, heartbeats, holdings)
                self._parts = _Parts(coordinator, holdings, heartbeats, beating, offsets, in_place)
                first: list[asyncio.Future[Any]] = [heartbeats.joined, heartbeats.ended, beating]
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            await self._close(for_good=False)
            raise ClientLostError("group", f"the group did not answer within {seconds:g} s of joining") from error
        if heartbeats.ended.done():
            raise heartbeats.ended.result()
        if failed := has_ended("heartbeat", beating):
            raise ClientLostError("task_ended", failed)
        heartbeats.ended.add_done_callback(self._ends_with)
        return StartOffsets(offsets, in_place)

    def _connected(self, consumer: Any) -> None:
        parts = self._parts
        if parts is not None:
            ids = TopicIds(consumer._client)
            self._reconciliation = Reconciliation(self.member, parts.heartbeats, parts.holdings, ids, self)
            self._reconciliation.step()

    def _hold(self) -> None:
        if self._reconciliation is not None:
            self._reconciliation.hold()

    def _ends_with(self, ended: asyncio.Future[KafkaError]) -> None:
        """End the daemon: this member has ended, and nothing more may be started or committed."""
        if not ended.cancelled():
            self._over = True
            self._listener.doubt(doubtful=True)
            self.fail(ended.result())

    async def _leave(self, *, for_good: bool) -> None:
        """Leave for good. Before the next client only a static member does, which could not join again otherwise.

        A leave that came late would remove the member that has joined again; without it nothing moves.
        """
        parts, self._parts = self._parts, None
        if self._reconciliation is not None:
            await self._reconciliation.stop()
            self._reconciliation = None
        if parts is not None:
            parts.beating.cancel()
            await asyncio.wait([parts.beating])
            if for_good or self.member.instance_id is not None:
                await parts.heartbeats.leave()
            if not for_good:
                parts.coordinator.hang_up()

    def _ended(self) -> str | None:
        beating = self._parts.beating if self._parts is not None else None
        return has_ended("heartbeat", beating) or super()._ended()

    def _is_lost(self) -> bool:
        return self.member.epoch == JOIN

    def doubtful(self, now: float) -> bool:
        """Whether the group may have removed this member: for its silence, or because it has not let go in time."""
        late = self.member.late(now, early(self._kafka.rebalance_timeout_seconds))
        return super().doubtful(now) or (self.joined and not self.rebalancing and late)

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
            return "failed"
        result = await parts.offsets.commit(offsets, self.notes.write() if self.notes is not None else "")
        if result == "ok":
            self._ends.heard(time.monotonic())
        return result

    @property
    def membership(self) -> members.Membership:
        """This member as it knows itself. Read from any thread."""
        reconciliation = self._reconciliation  # read once: the event loop may replace it
        unbegun = dict.fromkeys(reconciliation.unbegun if reconciliation is not None else (), self.member.target_since)
        return super().membership._replace(answered_at=self.member.answered_at, unbegun=unbegun)

    def _revoking(self) -> Collection[TopicPartition]:
        reconciliation = self._reconciliation  # read once: the event loop may replace it
        return tuple(reconciliation.draining) if reconciliation is not None else ()

    def acknowledged(self) -> None:
        """Note how long the partitions stood still that were let go of: the group knows of them now."""
        stopped_at, self._stopped_at = self._stopped_at, {}
        for at in stopped_at.values():
            self._counters.moves["revoked"].observe(time.monotonic() - at)

    async def describe(self) -> GroupDescription:
        """Ask the coordinator for the group's members."""
        if self._parts is None:
            raise KafkaError("no client is connected")
        return consumer_description(await self._parts.coordinator.send(DescribeRequest([self.group_id], False)))

    async def let_go(self, keys: Collection[TopicPartition], *, lost: bool) -> None:
        """Drain and commit partitions, or drop them if they are lost."""
        await self._drop(keys)
        began = time.monotonic()
        self._note_revoked(len(keys), lost=lost)
        if lost:
            self._stopped_at = {}
            await self._listener.revoke(list(keys), lost=True)
        else:
            within = self._kafka.rebalance_timeout_seconds
            await self.drains.slow_first(keys, within, self._revoke)
        self._note_slow(keys, began)
        parts, fetch = self._parts, self._fetch
        if parts is not None and fetch is not None:
            for key in keys:
                parts.in_place.hide(key)
                fetch.forget(key)
        await self._drop(keys)  # again: the broker may have deleted an offset of theirs during the drain

    async def _drop(self, keys: Collection[TopicPartition]) -> None:
        """Have the positions of these partitions set no more."""
        if self._positions is not None:
            await self._positions.drop(keys)

    async def _revoke(self, keys: Collection[TopicPartition]) -> None:
        await self._drop(keys)  # those that went on until now may be at a reset, which would begin an epoch
        self._stopped_at = {**self._stopped_at, **dict.fromkeys(keys, time.monotonic())}
        await self._listener.revoke(list(keys), lost=False)

    async def starts(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Return where the partitions begin whose topics are read; the brokers' pattern may match others."""
        unread = {key for key in keys if self._pattern is not None and not self._pattern.match(key.topic)}
        parts, read = self._parts, set(keys) - unread
        return dict.fromkeys(unread) | (await parts.offsets.committed(read) if parts is not None and read else {})

    def begin(self, starts: Mapping[TopicPartition, int], since: float) -> None:
        """Have partitions fetched; where the group has no offset, its start is found first."""
        parts, fetch, positions = self._parts, self._fetch, self._positions
        if parts is None or fetch is None or positions is None:
            return
        parts.in_place.learn({key.topic for key in starts})
        for key, offset in starts.items():
            fetch.forget(key)
            if offset >= 0:
                parts.in_place.show(key, offset)
            else:
                parts.in_place.know(key)
                positions.missing(key)
        self._begin(starts)
        self._counters.moves["assigned"].observe(time.monotonic() - since, len(starts))

    def fail(self, error: Exception) -> None:
        """End the daemon."""
        self._fail(error)
