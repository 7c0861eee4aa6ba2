"""aiokafka's clients: made from our settings, with the options that the daemon relies on; and their errors as text."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from consumer.errors import KafkaError, KafkaUnreachableError, SettingsError
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka, Security

ClientError = aiokafka.errors.KafkaError
"""Base class of aiokafka's errors, which are translated in this folder."""

CORRECT = "create it, or correct the name"


def connection_options(kafka: Kafka) -> dict[str, Any]:
    """Return the options that consumer, producer and admin client share: brokers, client id, security."""
    security = kafka.security
    return {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "client_id": kafka.client_id,
        "security_protocol": security.protocol,
        "ssl_context": _ssl_context(security) if security.protocol.endswith("SSL") else None,
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username or None,
        "sasl_plain_password": security.password or None,
        "request_timeout_ms": _ms(kafka.request_timeout_seconds),
    }


def make_consumer(kafka: Kafka, fetches_per_partition: int = 1) -> aiokafka.AIOKafkaConsumer:
    """Make the consumer of the daemon's group, not connected and not subscribed.

    ``fetch_bytes`` bounds the fetched bytes per partition; ``fetches_per_partition`` fetches share it.

    - No auto-commit: it commits records that were returned, not those that are done.
    - Reset "none": we choose the offset to start from, and commit it before the first record.
    - One assignor: two assignors would join the group twice.
    - Request timeout: a join takes as long as a rebalance, so requests must be allowed longer.
    - Poll interval of two rebalances: a drain, however long, is no reason to leave the group.
    - Metadata age 30 s, not 5 minutes: topics missing from one answer come back only with the next.
    - Fetch wait 100 ms, not 500: an idle fetch keeps a busy partition waiting.
    """
    return aiokafka.AIOKafkaConsumer(
        **connection_options(kafka),
        group_id=kafka.group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=_ms(kafka.session_timeout_seconds),
        heartbeat_interval_ms=_ms(kafka.heartbeat_interval_seconds),
        rebalance_timeout_ms=_ms(kafka.rebalance_timeout_seconds),
        max_poll_interval_ms=max(300_000, 2 * _ms(kafka.rebalance_timeout_seconds)),
        metadata_max_age_ms=30_000,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=max(1, kafka.fetch_bytes // fetches_per_partition),
        isolation_level=kafka.isolation_level,
        check_crcs=True,
    )


def make_reader(kafka: Kafka) -> aiokafka.AIOKafkaConsumer:
    """Make a consumer without a group, not connected and without partitions."""
    return aiokafka.AIOKafkaConsumer(
        **connection_options(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=kafka.isolation_level,
        max_partition_fetch_bytes=kafka.fetch_bytes,
    )


@asynccontextmanager
async def open_admin(kafka: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client for the block; raises the client's errors."""
    admin = AIOKafkaAdminClient(**connection_options(kafka))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def require_topics(
    admin: AIOKafkaAdminClient, topics: Collection[str], remedy: str = CORRECT, setting: str = "kafka.topics"
) -> dict[str, int]:
    """Return the number of partitions of each topic. Raises KafkaError that names the missing ones.

    It requests all topics: a request for one name may create the topic, also for a typing error.
    """
    found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics() if not each["error_code"]}
    missing = [topic for topic in topics if topic not in found]
    if missing:
        names = ", ".join(repr(topic) for topic in missing)
        raise KafkaError(f"{setting}: no topic {names} that this client may read; {remedy}")
    return {topic: found[topic] for topic in topics}


def position_of(consumer: Any, key: TopicPartition) -> int | None:
    """Return the next offset that a consumer reads, or None; its public ``position()`` would wait for one."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    state = assignment.state_value(aiokafka.TopicPartition(*key)) if assignment is not None else None
    return state.position if state is not None and state.has_valid_position else None


def unreachable(kafka: Kafka) -> KafkaUnreachableError:
    """Make the error for brokers that did not answer at start; the client's own text names only its internals."""
    servers, security = ", ".join(kafka.bootstrap_servers), kafka.security.protocol
    return KafkaUnreachableError(
        f"kafka.bootstrap_servers: {servers} did not answer within {kafka.start_timeout_seconds:g} s; is Kafka running"
        f" there, and does that port speak {security} (kafka.security.protocol)?"
    )


def described(error: BaseException) -> str:
    """Describe a client error in one line: its class and its text, which names only brokers and topics."""
    name = type(error).__name__
    text = str(error).strip().partition("\n")[0].removeprefix(f"{name}: ")
    return f"{name}: {text}" if text else name


def _ssl_context(security: Security) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
        if security.certificate_file:
            context.load_cert_chain(security.certificate_file, security.key_file)
    except OSError as error:
        files = ", ".join(filter(None, (security.ca_file, security.certificate_file, security.key_file)))
        raise SettingsError(f"kafka.security: cannot use {files}: {error.strerror or error}") from error
    return context


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
