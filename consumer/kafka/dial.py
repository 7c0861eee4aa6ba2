"""Finding a broker that answers: all bootstrap servers are tried at once, and what happened at each is named.

aiokafka tries its bootstrap servers one after the other, so each that accepts connections and never answers would
delay every client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import errors
from aiokafka.conn import AIOKafkaConnection, get_ip_port_afi
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from consumer.errors import ConsumerError, KafkaError, KafkaUnreachableError
from consumer.kafka import connection
from consumer.kafka.connection import closed
from consumer.kafka.connection_failures import (
    IN_HANDSHAKE,
    NO_TLS,
    ConnectionFailedError,
    Failure,
    expects_sasl,
    failure_of,
)
from consumer.kafka.failures import ClientError
from consumer.settings.sections import Kafka, address_of

ANY_MECHANISM = "PLAIN"
SHARE_OF_START = 0.4
"""A server, and a broker behind it, are named before ``start_timeout_seconds`` has passed."""


async def dial(kafka: Kafka) -> Kafka:
    """Return the settings with only the bootstrap server that answered first, for the next client.

    Raises KafkaUnreachableError when none answers, and KafkaError when none ever will with these settings: both name
    every server and what happened there.
    """
    caller = _Caller(kafka)
    server, failures = await _first(caller.answering(each) for each in kafka.bootstrap_servers)
    if server is None:
        raise refusal("kafka.bootstrap_servers", failures)
    return msgspec.structs.replace(kafka, bootstrap_servers=[server])


async def unreached_brokers(kafka: Kafka) -> list[Failure]:
    """Return why brokers cannot be used at the addresses that the cluster advertises; raises as ``dial`` does."""
    (server,) = (await dial(kafka)).bootstrap_servers
    caller = _Caller(kafka)
    found = await asyncio.gather(*map(caller.reachable, await caller.advertised(server)), return_exceptions=True)
    return [each.failure for each in found if isinstance(each, ConnectionFailedError)]


def refusal(setting: str, failures: list[Failure]) -> ConsumerError:
    """Make the error for brokers that cannot be used, which names each with what happened and what to do."""
    told = f"{setting}: {'; '.join(map(str, failures))}"
    return KafkaError(told) if all(each.lasting for each in failures) else KafkaUnreachableError(told)


class _Caller:
    """Connects to single addresses, with the options of one client."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._options = connection.connection_options(kafka)
        del self._options["bootstrap_servers"]

    async def answering(self, server: str) -> str:
        """Return the server if it answers and one broker can be reached where its cluster says that it is."""
        advertised = await self.advertised(server)
        if server in advertised or not advertised:  # a cluster that has just started names no brokers
            return server
        reached, failures = await _first(map(self.reachable, advertised))
        if reached is None:
            address, what, *_ = failures[0]
            what = f"answers, but its cluster advertises {address}, which {what}"
            remedy = "correct advertised.listeners of the broker, or make that address reachable from here"
            raise ConnectionFailedError(Failure(server, what, remedy, lasting=False))
        return server

    async def reachable(self, server: str) -> str:
        """Return the server if it answers."""
        async with self._connected(server):
            return server

    async def advertised(self, server: str) -> list[str]:
        """Return the addresses of the brokers, as the cluster advertises them."""
        async with self._connected(server) as asked:
            answer = await asked.send(MetadataRequest([]))
        return [address_of(host, port) for _, host, port, *_ in answer.brokers]

    @asynccontextmanager
    async def _connected(self, server: str) -> AsyncIterator[AIOKafkaConnection]:
        """Connect to one address for the block; both have CONNECT_SECONDS together. Raises ConnectionFailedError."""
        host, port, _ = get_ip_port_afi(server)
        seconds = min(connection.CONNECT_SECONDS, SHARE_OF_START * self._kafka.start_timeout_seconds)
        ends = asyncio.get_running_loop().time() + seconds
        try:
            made = await connection.connect(host, port, seconds=seconds, **self._options)
        except ConnectionFailedError as failed:
            if failed.failure == Failure(server, *IN_HANDSHAKE) and await self._speaks_plain(host, port):
                raise ConnectionFailedError(Failure(server, *NO_TLS)) from failed
            raise
        try:
            async with asyncio.timeout_at(ends):
                yield made
        except Exception as error:
            security = self._kafka.security
            if not (security.uses_sasl or made.connected()) and await self._takes_sasl(host, port):
                raise ConnectionFailedError(expects_sasl(server, security)) from error
            raise ConnectionFailedError(failure_of(server, error, security, seconds, connected=True)) from error
        finally:
            await closed(made)

    async def _speaks_plain(self, host: str, port: int) -> bool:
        """Whether a listener answers without TLS; nothing secret is sent."""
        with contextlib.suppress(ConnectionFailedError):
            await closed(await connection.connect(host, port, **{**self._options, "security_protocol": "PLAINTEXT"}))
            return True
        return False

    async def _takes_sasl(self, host: str, port: int) -> bool:
        """Whether a listener lets a client begin with SASL, which one without it refuses."""
        with contextlib.suppress(ClientError, OSError, TimeoutError):
            made: Any = await connection.connect(host, port, **self._options)
            try:
                async with asyncio.timeout(connection.CONNECT_SECONDS):
                    answer = await made.send(SaslHandShakeRequest(ANY_MECHANISM))
                return errors.for_code(answer.error_code) in (errors.NoError, errors.UnsupportedSaslMechanismError)
            finally:
                await closed(made)
        return False


async def _first(attempts: Iterable[Coroutine[Any, Any, str]]) -> tuple[str | None, list[Failure]]:
    """Return the first result and cancel the other attempts; None, and why each failed, when all fail."""
    tasks = [asyncio.ensure_future(each) for each in attempts]
    failures: list[Failure] = []
    try:
        for each in asyncio.as_completed(tasks):
            try:
                return await each, failures
            except ConnectionFailedError as error:
                failures.append(error.failure)
        return None, failures
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
