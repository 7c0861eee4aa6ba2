"""The group's offsets of single partitions, whatever the group protocol; and those of the classic one."""

from __future__ import annotations

from typing import Any, Protocol

import aiokafka

from consumer.kafka.client import committed_offsets, open_admin
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka


class Offsets(Protocol):
    """The group's offsets, as its protocol asks for them and commits them."""

    async def committed(self, key: TopicPartition) -> int:
        """Return the committed offset of a partition, -1 without one; KeyError if the answer lacks it."""

    async def commit(self, key: TopicPartition, offset: int) -> None:
        """Commit where a partition begins. Raises UNRESOLVED."""

    def begin(self, key: TopicPartition, offset: int) -> None:
        """Have a partition without a position fetched from an offset on."""

    def forget(self) -> None:
        """Forget what was asked for: partitions are about to be revoked."""


class ClassicOffsets:
    """The offsets of a group whose member aiokafka is; owned by the source, one for each client."""

    def __init__(self, kafka: Kafka, consumer: Any) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._found: dict[TopicPartition, int] = {}
        """Offsets of the group in the answer to a second client, -1 without one; each is used once."""

    async def committed(self, key: TopicPartition) -> int:
        """Ask a second client for the group's offset."""
        if key not in self._found:
            async with open_admin(self._kafka) as admin:
                partitions = list(self._consumer.assignment())
                found = await committed_offsets(admin, self._kafka.group_id, partitions)
            self._found = {TopicPartition(*each): answer.offset for each, answer in found.items()}
        return self._found.pop(key)

    async def commit(self, key: TopicPartition, offset: int) -> None:
        """Commit through aiokafka."""
        await self._consumer.commit({aiokafka.TopicPartition(*key): offset})

    def begin(self, key: TopicPartition, offset: int) -> None:
        """Set aiokafka's position."""
        self._consumer.seek(aiokafka.TopicPartition(*key), offset)

    def forget(self) -> None:
        """Forget the answer to a second client."""
        self._found.clear()
