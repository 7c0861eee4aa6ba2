"""aiokafka's clients made from our settings, pinned as its pitfalls demand, and its errors said in our words."""

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
"""Anything that aiokafka raises of its own; translated into our words in this package."""

CORRECT = "create it, or correct the name"


def connection_options(kafka: Kafka) -> dict[str, Any]:
    """Return what consumer, producer and admin client have in common: where, who, how secure."""
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
    """Make the consumer of the daemon's group; not yet connected, subscribed to nothing.

    ``fetch_bytes`` bounds what is held of a partition: as many fetches as may be held at once share it.

    - auto-commit commits by the clock what was returned, not what was done
    - reset "none": which offset to start from is our decision, and committed before the first record
    - two assignors would join the group twice
    - a join takes as long as a rebalance, so requests must be allowed longer
    - topics dropped from one metadata answer come back only with the next: 30 s, not 5 minutes
    - an idle fetch keeps a busy partition waiting: 100 ms, not 500
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
        metadata_max_age_ms=30_000,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=max(1, kafka.fetch_bytes // fetches_per_partition),
        isolation_level=kafka.isolation_level,
        check_crcs=True,
    )


def make_reader(kafka: Kafka) -> aiokafka.AIOKafkaConsumer:
    """Make a consumer that is in no group; not yet connected, assigned nothing."""
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
    """Connect an admin client and close it again; raises what the client raises, for as long as it tries."""
    admin = AIOKafkaAdminClient(**connection_options(kafka))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def require_topics(
    admin: AIOKafkaAdminClient, topics: Collection[str], remedy: str = CORRECT, setting: str = "kafka.topics"
) -> dict[str, int]:
    """Return the number of partitions of each topic; raise KafkaError naming those that do not exist.

    It asks for all topics: asking for one by name may create it, and a typing error would become a topic.
    """
    found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics() if not each["error_code"]}
    missing = [topic for topic in topics if topic not in found]
    if missing:
        names = ", ".join(repr(topic) for topic in missing)
        raise KafkaError(f"{setting}: no topic {names} that this client may read; {remedy}")
    return {topic: found[topic] for topic in topics}


def position_of(consumer: Any, key: TopicPartition) -> int | None:
    """Where a consumer will read next; its public ``position()`` would wait where there is none yet."""
    subscription = consumer._subscription.subscription
    assignment = subscription.assignment if subscription is not None else None
    state = assignment.state_value(aiokafka.TopicPartition(*key)) if assignment is not None else None
    return state.position if state is not None and state.has_valid_position else None


def unreachable(kafka: Kafka) -> KafkaUnreachableError:
    """Make the error for brokers that did not answer at start; the client's own text shows only its inside."""
    servers, security = ", ".join(kafka.bootstrap_servers), kafka.security.protocol
    return KafkaUnreachableError(
        f"kafka.bootstrap_servers: {servers} did not answer within {kafka.start_timeout_seconds:g} s; is Kafka running"
        f" there, and does that port speak {security} (kafka.security.protocol)?"
    )


def described(error: BaseException) -> str:
    """Say what a client error is in one line: its class, and its text, which names brokers and topics only."""
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
