"""The Kafka of all tests: a given one, one in a container, or a local one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.local.jars import KAFKA_VERSION
from tests.cluster import Cluster
from tests.shared_kafka import SHORT_SESSIONS, shared_kafka

settings.register_profile("untimed", deadline=None)  # a slow machine is no failure
settings.load_profile("untimed")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Kafka at KAFKA_BOOTSTRAP_SERVERS when set, in a container when TEST_KAFKA=docker, else local; never a skip."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
    elif os.environ.get("TEST_KAFKA") == "docker":
        from testcontainers.kafka import KafkaContainer  # noqa: PLC0415 - heavy, and only for who asks

        with KafkaContainer(f"apache/kafka:{KAFKA_VERSION}").with_kraft() as container:
            yield container.get_bootstrap_server()
    elif "PYTEST_XDIST_WORKER" in os.environ:
        with shared_kafka(tmp_path_factory.getbasetemp().parent) as servers:
            yield servers
    else:
        async with LocalKafka(properties=SHORT_SESSIONS) as kafka:
            yield kafka.bootstrap_servers


@pytest.fixture
def cluster(bootstrap_servers: str, request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    """Make topics and groups of one test, under unique names."""
    return Cluster(bootstrap_servers, request.node.name, tmp_path)
