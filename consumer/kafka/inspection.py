"""What the daemon needs of the brokers, asked without changing anything: reach, permissions, settings of topics.

Each question returns a sentence, or raises a ConsumerError with the way out. ``session-consumer check`` asks them all.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from consumer.errors import ConsumerError, KafkaError, counted
from consumer.kafka.classic_check import may_join
from consumer.kafka.client import (
    CORRECT,
    committed_offsets,
    open_reader,
    require_readable_topics,
    require_topics,
)
from consumer.kafka.dial import refusal, unreached_brokers
from consumer.kafka.failures import REQUEST_ERRORS, ClientError, explained
from consumer.kafka.probe import answered, connected_admin
from consumer.kafka.protocol_check import ProtocolCheck
from consumer.kafka.topic_configs import Config, check_fit, retention, span
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

CLOCK_SECONDS = 60.0
"""Difference between the clocks of producers and of this machine that distorts the lag in seconds."""
SOON = 0.8
"""Share of a topic's retention from which on a record that is not consumed counts as about to be deleted."""
READ_SECONDS = 5.0
CREATE_LETTERS = (
    'create it, or the first dead letter halts its partition (set dead_letter.topic = "" if that is intended)'
)


class Inspection:
    """One look at the brokers; made by ``inspecting``."""

    def __init__(
        self, admin: AIOKafkaAdminClient, kafka: Kafka, letters: Mapping[str, str], targets: Collection[str]
    ) -> None:
        self._admin = admin
        self._client: Any = admin._client
        self._kafka = kafka
        self._letters = letters
        self._targets = targets
        self._partitions: dict[str, int] = {}

    async def answer(self, question: Callable[[], Awaitable[str]]) -> str:
        """Ask one question; a client's error becomes a KafkaError."""
        try:
            return await question()
        except ConsumerError:
            raise
        except REQUEST_ERRORS as error:
            raise KafkaError(explained(error, self._kafka)) from error

    async def brokers(self) -> str:
        """Check that every broker can be reached at the address that the cluster advertises."""
        failures = await unreached_brokers(self._kafka)
        if failures:
            raise refusal("advertised.listeners of the brokers", failures)
        return f"{counted(len(self._client.cluster.brokers()), 'broker')}, reachable as the cluster advertises"

    async def topics(self) -> str:
        """Check that the topics exist, that their records can be read, and that the clocks agree."""
        self._partitions = await self._answered(lambda: require_readable_topics(self._admin, self._kafka.topics))
        newest = 0.0
        async with open_reader(self._kafka) as reader:
            for topic, count in self._partitions.items():
                for partition in range(count):
                    newest = max(newest, await self._newest(reader, TopicPartition(topic, partition)))
        if newest - time.time() > CLOCK_SECONDS:
            raise KafkaError(
                f"kafka.topics: the newest record is {span(newest - time.time())} in the future by this machine's"
                " clock; set this clock, or those of the producers"
            )
        return _counted(self._partitions)

    async def group(self) -> str:
        """Check that this client may join its group, and that no record is deleted before the group has it."""
        how = await self._may_join()
        keys = [TopicPartition(topic, each) for topic, count in self._partitions.items() for each in range(count)]
        asked = [aiokafka.TopicPartition(*key) for key in keys]
        group = self._kafka.group_id
        answers = await self._answered(lambda: committed_offsets(self._admin, group, asked))
        committed = {TopicPartition(*key): each.offset for key, each in answers.items() if each.offset >= 0}
        if self._kafka.offset_reset == "none" and (without := [key for key in keys if key not in committed]):
            raise KafkaError(
                f'kafka.offset_reset is "none" and group {group!r} has no offset for {without[0]}, which would halt;'
                " commit one, or set it to earliest or latest"
            )
        await self._in_time(committed)
        if not committed:
            return f"{group}: no committed offsets; starts at {self._kafka.offset_reset}{how}"
        return f"{group}: offsets committed for {counted(len(committed), 'partition')}{how}"

    async def dead_letters(self) -> str:
        """Check that the dead-letter topics exist, that this client may write there, and that they keep letters."""
        if not self._letters:
            return "no topic: the first dead letter halts its partition"
        targets = sorted(set(self._letters.values()))
        counts = await self._answered(lambda: require_topics(self._admin, targets, CREATE_LETTERS, "dead_letter.topic"))
        await self._may_write(targets, "dead_letter.topic")
        for topic, target in self._letters.items():
            check_fit(topic, await self._config(topic), target, await self._config(target))
        return _counted(counts)

    async def targets(self) -> str:
        """Check that the topics that handlers write to exist, and that this client may write there."""
        targets, setting = sorted(self._targets), "options.topic"
        counts = await self._answered(lambda: require_topics(self._admin, targets, CORRECT, setting))
        await self._may_write(targets, setting)
        return _counted(counts)

    async def _may_join(self) -> str:
        """Ask whether this client may join; return what is to be known of the protocol, empty for the classic one."""
        if self._kafka.group_protocol == "consumer":
            return f"; {await self._answered(ProtocolCheck(self._admin, self._kafka).sentence)}"
        await self._answered(lambda: may_join(self._admin, self._kafka))
        return ""

    async def _may_write(self, topics: Collection[str], setting: str) -> None:
        """Check that this client may write to topics, and idempotently."""
        for topic in topics:
            await self._may_write_to(topic, setting)
        answer: Any = await self._answered(lambda: self._client.send(self._any(), InitProducerIdRequest(None, 0)))  # type: ignore[arg-type]
        if errors.for_code(answer.error_code) is errors.ClusterAuthorizationFailedError:
            raise KafkaError(
                f"{setting}: permission denied to write idempotently; grant IDEMPOTENT_WRITE on the cluster"
            )

    async def _may_write_to(self, topic: str, setting: str) -> None:
        """Send a write without a record: a broker looks at the permission first, and then refuses it."""
        await self._client._wait_on_metadata(topic)
        partition = aiokafka.TopicPartition(topic, min(self._client.cluster.partitions_for_topic(topic)))
        leader = self._client.cluster.leader_for_partition(partition)
        write = ProduceRequest(None, -1, 5000, [(topic, [(partition.partition, b"")])])
        answer: Any = await self._answered(lambda: self._client.send(leader, write))
        ((_, ((_, code, *_),)),) = answer.topics
        if errors.for_code(code) is errors.TopicAuthorizationFailedError:
            raise KafkaError(f"{setting}: permission denied to write to {topic!r}; grant WRITE on it")

    async def _in_time(self, committed: Mapping[TopicPartition, int]) -> None:
        """Check that the next record of each partition is there, and will be there for a while."""
        keys = [aiokafka.TopicPartition(*key) for key in committed]
        if not keys:
            return
        async with open_reader(self._kafka) as reader:
            begins = await self._answered(lambda: reader.beginning_offsets(keys))
            ends = await self._answered(lambda: reader.end_offsets(keys))
            for key in keys:
                offset = committed[TopicPartition(*key)]
                inside = begins[key] <= offset <= ends[key]
                if not inside and self._kafka.out_of_range == "halt":
                    raise KafkaError(
                        f"kafka.group_id: the group's offset {offset} of {key.topic}-{key.partition} is gone: its log"
                        f" begins at {begins[key]} and ends at {ends[key]}; set kafka.out_of_range, or reset the offset"
                    )
                if inside and offset < ends[key]:
                    written = await self._read_at(reader, TopicPartition(*key), offset)
                    left = retention(await self._config(key.topic)) - (time.time() - written)
                    if written and left < (1 - SOON) * retention(await self._config(key.topic)):
                        raise KafkaError(
                            f"kafka.group_id: the next record of {key.topic}-{key.partition}, at offset {offset}, will"
                            f" be deleted in {span(max(0.0, left))}; raise retention.ms of the topic until the group"
                            " has caught up"
                        )

    async def _newest(self, reader: Any, key: TopicPartition) -> float:
        partition = aiokafka.TopicPartition(*key)
        begin = (await self._answered(lambda: reader.beginning_offsets([partition])))[partition]
        end = (await self._answered(lambda: reader.end_offsets([partition])))[partition]
        return await self._read_at(reader, key, max(begin, end - 1), wait=end > begin)

    async def _read_at(self, reader: Any, key: TopicPartition, offset: int, *, wait: bool = True) -> float:
        """Return when the first record from an offset on was written, in Unix seconds; 0 if none came."""
        partition = aiokafka.TopicPartition(*key)
        reader.assign([partition])
        reader.seek(partition, offset)
        try:
            seconds = READ_SECONDS if wait else 0.2  # an empty partition says whether it may be read, too
            found = await reader.getmany(partition, timeout_ms=int(seconds * 1000), max_records=1)
        except ClientError as error:
            raise KafkaError(f"kafka.topics: {explained(error, self._kafka)}") from error
        return max((each.timestamp / 1000 for each in found.get(partition, ())), default=0.0)

    async def _config(self, topic: str) -> Config:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        (answer,) = await self._answered(lambda: self._admin.describe_configs([resource]))
        ((code, _, _, _, entries),) = answer.resources
        return {name: value for name, value, *_ in entries} if code == 0 else {}

    async def _answered(self, question: Any) -> Any:
        return await answered(self._kafka, question)

    def _any(self) -> int:
        return int(self._client.get_random_node())


@asynccontextmanager
async def inspecting(
    kafka: Kafka, letters: Mapping[str, str], targets: Collection[str] = ()
) -> AsyncIterator[Inspection]:
    """Connect for the block; ``letters`` has the dead-letter topic of each topic, or nothing.

    ``targets`` are the topics that handlers write to.

    Raises KafkaUnreachableError or KafkaError when no broker can be used.
    """
    async with connected_admin(kafka) as admin:
        yield Inspection(admin, kafka, letters, targets)


def _counted(partitions: Mapping[str, int]) -> str:
    return ", ".join(f"{topic} ({counted(count, 'partition')})" for topic, count in partitions.items())
