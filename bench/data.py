"""Data sets: sessions with keys, one topic each, produced once and read by all contestants.

Each data set exists in three spellings with the same information: the usual snake_case, camelCase, and snake_case with
one field that the Struct does not have.
"""

from __future__ import annotations

import itertools
import random
import string
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from bench.loops.in_use import FILES
from consumer.kafka.producer import create_topic
from consumer.settings.sections import Kafka
from schemas.samples import encoded, sessions
from schemas.session import Session

KEYS = 20_000
BATCH_BYTES = 131_072
OUTSTANDING = 64
Spelling = Literal["snake", "camel", "unknown"]


class DataSet(NamedTuple):
    """Content of a topic: a pool of ``keys`` sessions, one per key, produced repeatedly."""

    events: int
    size: int = 325
    codec: str = "lz4"
    partitions: int = 4
    keys: int = KEYS
    spelling: Spelling = "snake"

    @property
    def topic(self) -> str:
        return f"bench-{self.events}-{self.size}-{self.codec}-{self.partitions}-{self.keys}-{self.spelling}"

    def lines(self) -> dict[str, int]:
        """Return the number of lines that each of ``FILES`` must have after a run."""
        kinds = [session.channel_manager_type or "" for session in itertools.islice(sessions(), self.keys)]
        whole, rest = divmod(self.events, self.keys)
        return {
            name: sum(whole + (index < rest) for index, kind in enumerate(kinds) if fnmatchcase(kind, wanted))
            for name, wanted in FILES.items()
        }


def values(size: int, count: int, spelling: Spelling = "snake") -> list[bytes]:
    """Return ``count`` distinct sessions of about ``size`` bytes each: 150, 325 or more (in snake_case)."""
    letters = random.Random(0)  # the same data in every run
    made = []
    for session in itertools.islice(sessions(), count):
        shaped = session
        if size < 300:
            shaped = Session(
                timestamp=session.timestamp,
                session_id=session.session_id,
                channel_manager_type=session.channel_manager_type,
                source=session.source,
                is_test=session.is_test,
                agent_id=session.agent_id,
            )
        elif size > 400:
            text = "".join(letters.choices(string.ascii_lowercase + " ", k=max(1, size - 345)))
            shaped = msgspec.structs.replace(session, prompt_name=text)
        made.append(spelled(shaped, spelling))
    return made


def spelled(session: Session, spelling: Spelling) -> bytes:
    """Encode a session in one of the spellings."""
    if spelling == "unknown":
        fields = msgspec.to_builtins(session)
        return msgspec.json.encode({**fields, "customer_sentiment": "neutral"})
    return encoded(session, camel=spelling == "camel")


class Topics:
    """Creates and fills topics on one Kafka, and remembers them."""

    def __init__(self, servers: str, say) -> None:
        self._servers = servers
        self._say = say
        self._filled: set[str] = set()

    async def filled(self, data: DataSet) -> str:
        """Return the name of a topic with this data set; creates it if it is missing."""
        if data.topic not in self._filled:
            self._say(f"producing {data}")
            await create_topic(self.kafka(data.topic), data.topic, data.partitions)
            await _fill(self._servers, data)
            self._filled.add(data.topic)
        return data.topic

    async def empty(self, name: str, partitions: int) -> str:
        """Create an empty topic."""
        await create_topic(self.kafka(name), name, partitions)
        return name

    def kafka(self, topic: str, group: str = "bench") -> Kafka:
        return Kafka(bootstrap_servers=self._servers.split(","), topics=[topic], group_id=group)


async def _fill(servers: str, data: DataSet) -> None:
    """Append whole batches: a key always goes to the same partition, a batch holds up to ``BATCH_BYTES``."""
    pool = values(data.size, data.keys, data.spelling)
    keys = [str(number).encode() for number in range(data.keys)]
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        compression_type=None if data.codec == "none" else data.codec,
        max_batch_size=BATCH_BYTES,
        linger_ms=0,
    )
    await producer.start()
    try:
        batches = [producer.create_batch() for _ in range(data.partitions)]
        sent = []
        for number in range(data.events):
            index = number % data.keys
            partition = index % data.partitions
            if batches[partition].append(key=keys[index], value=pool[index], timestamp=None) is None:
                sent.append(await producer.send_batch(batches[partition], data.topic, partition=partition))
                batches[partition] = producer.create_batch()
                batches[partition].append(key=keys[index], value=pool[index], timestamp=None)
                if len(sent) >= OUTSTANDING:
                    await sent.pop(0)
        for partition, batch in enumerate(batches):
            if batch.record_count():
                sent.append(await producer.send_batch(batch, data.topic, partition=partition))
        for each in sent:
            await each
    finally:
        await producer.stop()
