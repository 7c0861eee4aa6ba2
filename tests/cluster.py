"""One test's topics and groups on Kafka: create them, produce records, read offsets back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient

from consumer.kafka.probe import group_offsets
from consumer.kafka.producer import create_topic
from consumer.settings.sections import Kafka
from tests.process import RunningConsumer

A_SESSION = b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"%d","channel_manager_type":"voice_sip_v1"}'


def a_session(number: int) -> bytes:
    return A_SESSION % number


async def eventually(holds: Callable[[], Any | Awaitable[Any]], seconds: float = 20.0) -> Any:
    """Wait until something holds and return it; fail with its last value."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        await asyncio.sleep(0.05)


class Cluster:
    """One test's topic and group on the broker."""

    def __init__(self, bootstrap_servers: str, name: str, folder: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topic = f"{re.sub('[^a-zA-Z0-9]+', '-', name)[:60]}-{uuid4().hex[:8]}"
        self.folder = folder
        self.kafka = Kafka(
            bootstrap_servers=bootstrap_servers.split(","), topics=[self.topic], group_id=f"group-{self.topic}"
        )

    async def create(self, partitions: int = 1, *, dead_letters: int = 0) -> None:
        """Create the topic and, with a number of partitions, its dead-letter topic; wait until brokers show them."""
        made = {self.topic: partitions} | ({f"{self.topic}.dlq": dead_letters} if dead_letters else {})
        for topic, count in made.items():
            await create_topic(self.kafka, topic, count)
        async with self.admin() as admin:

            async def shown() -> bool:
                return made.keys() <= {each["topic"] for each in await admin.describe_topics()}

            await eventually(shown)

    async def produce(self, values: Iterable[bytes | None], partition: int | None = 0, **options: Any) -> None:
        async with self.producer(**options) as producer:
            futures = [await producer.send(self.topic, value, key=b"key", partition=partition) for value in values]
            for future in futures:
                await future

    @asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[aiokafka.AIOKafkaProducer]:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, **options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def lag(self) -> int:
        return sum(end - (committed or 0) for committed, end in (await group_offsets(self.kafka)).values())

    async def committed(self) -> dict[int, int | None]:
        offsets = await group_offsets(self.kafka)
        return {partition: committed for (_topic, partition), (committed, _end) in sorted(offsets.items())}

    @property
    def overrides(self) -> list[str]:
        """What points a daemon at this test's topic and group, without the brokers."""
        return [
            f"kafka.topics={self.topic}",
            f"kafka.group_id={self.kafka.group_id}",
            "delivery.commit_interval_seconds=0.1",
            "http.port=0",
            "log.format=json",
        ]

    def run(self, *overrides: str, routes: str = "", name: str = "a") -> RunningConsumer:
        """Prepare a ``session-consumer run`` process on this test's topic and group; enter it to start it."""
        settings = self.folder / f"{name}.toml"
        settings.write_text(f'path = ["{Path(__file__).parent / "handlers"}"]\n{routes}')
        servers = f"kafka.bootstrap_servers={self.bootstrap_servers}"
        return RunningConsumer(settings, [servers, *self.overrides, *overrides])


def a_route(handler: str, name: str = "all", **options: object) -> str:
    given = ", ".join(f"{key} = {_toml(value)}" for key, value in options.items())
    return f'[[routes]]\nname = "{name}"\nhandler = "{handler}"\noptions = {{ {given} }}\n'


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'
