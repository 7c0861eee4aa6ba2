"""Three real brokers, each behind a proxy, for faults of brokers and network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient

from consumer.kafka.local.broker import Broker
from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.local.jars import find_java
from consumer.kafka.local.ports import held_ports
from tests.chaos.harness import SHORT_SESSIONS
from tests.chaos.proxy import Proxy

PROPERTIES = {
    **SHORT_SESSIONS,
    "unclean.leader.election.enable": "false",
    "offsets.topic.num.partitions": "5",
    "replica.lag.time.max.ms": "5000",
    "broker.session.timeout.ms": "5000",
    "controlled.shutdown.enable": "true",
}


class Three(LocalKafka):
    """A cluster of three brokers whose clients connect through proxies; measurements connect directly."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        super().__init__(brokers=3, folder=folder, properties=self._of_node)
        self.proxies: dict[int, Proxy] = {}
        self._seed = seed
        self._proxied: dict[int, tuple[int, int]] = {}
        self._opened = AsyncExitStack()

    @property
    def through_proxies(self) -> str:
        """Bootstrap servers of the clients that meet faults."""
        return ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies.values())

    async def __aenter__(self) -> Self:
        with held_ports(0, 6) as ports:
            self._proxied = {node: (ports[node - 1], ports[node + 2]) for node in (1, 2, 3)}
        await super().__aenter__()
        for node, (outer, inner) in self._proxied.items():
            self.proxies[node] = await self._opened.enter_async_context(Proxy(outer, inner, self._seed + node))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opened.aclose()
        await super().__aexit__(*error)  # type: ignore[arg-type]

    def _of_node(self, node: int, usual: Mapping[str, str]) -> Mapping[str, str]:
        outer, inner = self._proxied[node]
        return {
            **PROPERTIES,
            "listeners": f"{usual['listeners']},CLIENT://127.0.0.1:{inner}",
            "advertised.listeners": f"{usual['advertised.listeners']},CLIENT://127.0.0.1:{outer}",
            "listener.security.protocol.map": f"{usual['listener.security.protocol.map']},CLIENT:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }

    def kill(self, node: int) -> None:
        """End a broker at once with SIGKILL, like a power cut."""
        os.kill(self._brokers[node - 1].process_id, signal.SIGKILL)

    def freeze(self, node: int) -> None:
        """Stop a broker with SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self._brokers[node - 1].process_id, signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """Continue a frozen broker."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._brokers[node - 1].process_id, signal.SIGCONT)

    async def end(self, node: int) -> None:
        """Stop a broker in order: it hands over its leaderships first."""
        broker = self._brokers[node - 1]
        broker.terminate()
        while broker.exit_code() is None:
            await asyncio.sleep(0.05)

    async def start(self, *nodes: int) -> None:
        """Start brokers that ended on their kept data; return when all answer."""
        for node in nodes:
            old = self._brokers[node - 1]
            while old.exit_code() is None:
                await asyncio.sleep(0.05)
            old.close()
            self._brokers[node - 1] = broker = Broker(node, old.port, old.folder, temporary=False)
            broker.start(*await find_java(lambda _line: None))
        async with asyncio.timeout(60):
            await self._all_answer()

    async def leader(self, topic: str, partition: int) -> int:
        """Return the node that leads a partition."""
        client = AIOKafkaClient(bootstrap_servers=self.bootstrap_servers)
        await client.bootstrap()
        try:
            await client.set_topics([topic])
            found = client.cluster.leader_for_partition(aiokafka.TopicPartition(topic, partition))
            return int(found) if found is not None and found > 0 else 1
        finally:
            await client.close()

    async def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            return int(await admin.find_coordinator(group))
        finally:
            await admin.close()
