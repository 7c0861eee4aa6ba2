"""Committed offsets of a member of the consumer group protocol: every request names its id and its epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal
from uuid import UUID

import structlog
from aiokafka.errors import for_code

from consumer.errors import KafkaError
from consumer.kafka.coordinator import UNANSWERED, Coordinator
from consumer.kafka.failures import described
from consumer.kafka.group_errors import Reaction, reaction
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings, Ownership
from consumer.kafka.in_place import InPlace
from consumer.kafka.membership import JOIN, Membership
from consumer.kafka.wire import tagged
from consumer.kafka.wire_requests import OffsetCommitRequest, OffsetFetchRequest
from consumer.logs import Sparingly
from consumer.record import TopicPartition

log = structlog.get_logger("consumer.kafka")
sparing = Sparingly(log)

AGAIN_SECONDS = 0.2
NO_LEADER_EPOCH = -1


class GroupOffsets:
    """Commits and asks for offsets; owned by the source, one for each client.

    Under today's epoch the coordinator takes a commit of any partition, also of one that another member owns. So each
    attempt holds only what is still under the ownership that it was under when the commit began.
    """

    def __init__(
        self, group_id: str, member: Membership, coordinator: Coordinator, heartbeats: Heartbeats, holdings: Holdings
    ) -> None:
        self._group_id = group_id
        self._member = member
        self._coordinator = coordinator
        self._heartbeats = heartbeats
        self._holdings = holdings

    async def commit(self, offsets: Mapping[TopicPartition, int], note: str) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next; it repeats without limit, so the caller must bound it."""
        marks = {key: self._holdings.mark(key) for key in offsets}
        while True:
            owned = {key: mark for key, mark in marks.items() if mark is not None and self._holdings.mark(key) is mark}
            if not owned or self._member.epoch == JOIN:
                log.warning("commit_fenced", why="the partitions are no longer this member's")
                return "fenced"
            try:
                code = await self._send(owned, offsets, note)
            except UNANSWERED as error:
                sparing.warning("commit_delayed", why=described(error))
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if not code:
                return "ok"
            found = reaction(code)
            if found is Reaction.JOIN or found is Reaction.END:
                self._heartbeats.now()  # it learns the same, and what follows
                log.warning("commit_fenced", why=for_code(code).__name__)
                return "fenced"
            if found is Reaction.REPEAT:
                log.warning("commit_failed", why=for_code(code).__name__)
                return "failed"
            await self._before_again(found)

    async def _send(
        self, owned: Mapping[TopicPartition, Ownership], offsets: Mapping[TopicPartition, int], note: str
    ) -> int:
        """Send one commit of what is owned; return the first error code, 0 without one."""
        topics: dict[tuple[str, UUID], list[Any]] = {}
        for key, mark in sorted(owned.items(), key=itemgetter(0)):
            row = tagged(key.partition, offsets[key], NO_LEADER_EPOCH, note)
            topics.setdefault((key.topic, mark.topic_id), []).append(row)
        rows = [tagged(topic, found) for (topic, _), found in topics.items()]
        member = self._member
        head = self._group_id, member.epoch, member.member_id, member.instance_id
        request = OffsetCommitRequest(*head, rows, ids=[topic_id for _, topic_id in topics])
        answer = await self._coordinator.send(request)
        return next((code for _, found, _ in answer.topics for _, code, _ in found if code), 0)

    async def committed(self, keys: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return committed offsets, -1 where the group has none; it repeats until one of them is known.

        An error is never taken for "no offset": a partition with one, or that the answer lacks, is left out.
        """
        while True:
            try:
                answer = await self._ask(keys)
            except UNANSWERED as error:
                sparing.info("offsets_delayed", why=described(error))
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            ((_, topics, group_code, _),) = answer.groups
            rows = [(topic, row) for topic, of_topic, _ in topics for row in of_topic]
            found = {TopicPartition(topic, row[0]): row[1] for topic, row in rows if not group_code and not row[4]}
            code = group_code or next((row[4] for _, row in rows if row[4]), 0)
            if len(found) < len(keys):
                sparing.info("offsets_delayed", why=for_code(code).__name__)
            if found:
                return found
            await self._before_again(reaction(code))

    async def _ask(self, keys: Collection[TopicPartition]) -> Any:
        topics = [
            tagged(topic, [key.partition for key in found])
            for topic, found in groupby(sorted(keys), key=lambda key: key.topic)
        ]
        member = self._member
        asked = tagged(self._group_id, member.member_id, member.epoch, topics)
        return await self._coordinator.send(OffsetFetchRequest([asked], True))

    async def _before_again(self, found: Reaction) -> None:
        """Do what an error asks for before the request is sent again."""
        epoch = self._member.epoch
        if found is Reaction.BEAT:
            await self._heartbeats.beat()
            if self._member.epoch != epoch:
                return
        elif found is Reaction.FIND:
            self._coordinator.moved()
        elif found is not Reaction.REPEAT:
            self._heartbeats.now()  # it learns the same, and what follows
        await asyncio.sleep(AGAIN_SECONDS)


class StartOffsets:
    """Where partitions without a position begin; owned by the source, one for each client."""

    def __init__(self, offsets: GroupOffsets, in_place: InPlace) -> None:
        self._offsets = offsets
        self._in_place = in_place

    async def committed(self, key: TopicPartition) -> int:
        """Return the committed offset of a partition, -1 without one."""
        return (await self._offsets.committed([key]))[key]

    async def commit(self, key: TopicPartition, offset: int) -> None:
        """Commit where a partition begins. Raises KafkaError when the group did not take it."""
        result = await self._offsets.commit({key: offset}, "")
        if result != "ok":
            raise KafkaError(f"the commit of the first offset of {key} was {result}")

    def begin(self, key: TopicPartition, offset: int) -> None:
        """Have the partition fetched."""
        self._in_place.show(key, offset)

    def forget(self) -> None:
        """Forget nothing: nothing is kept."""
