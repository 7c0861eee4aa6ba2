"""Connections to the brokers: the options that every client shares, and a bound on how long one may take."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiokafka.client
from aiokafka.conn import AIOKafkaConnection, create_conn

from consumer.errors import SettingsError
from consumer.settings.sections import Kafka, Security

CONNECT_SECONDS = 10.0
"""Time for one connection: TCP, TLS, the first answer and authentication. Java's clients allow as much."""


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
        "request_timeout_ms": int(kafka.request_timeout_seconds * 1000),
    }


async def connect(*address: Any, **options: Any) -> AIOKafkaConnection:
    """Connect to one broker as aiokafka does, within CONNECT_SECONDS.

    aiokafka allows the whole request timeout, and no connection to any other broker is begun meanwhile. A broker that
    accepts and never answers would stop a client for more than a minute.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        made: AIOKafkaConnection = await create_conn(*address, **options)
        return made


aiokafka.client.create_conn = connect  # type: ignore[attr-defined]


def _ssl_context(security: Security) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
        if security.certificate_file:
            context.load_cert_chain(security.certificate_file, security.key_file)
    except OSError as error:
        files = ", ".join(filter(None, (security.ca_file, security.certificate_file, security.key_file)))
        raise SettingsError(f"kafka.security: cannot use {files}: {error.strerror or error}") from error
    return context
