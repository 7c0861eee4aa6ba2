"""Options of aiokafka that the client pins, whatever their defaults are.

The ids (S9, L2, F5 …) number the known ways in which aiokafka 0.14 stalls, loses records, or lets a stale
member commit.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import consumer.kafka.client_source
from consumer.kafka.client import Assignor, make_consumer
from consumer.settings.sections import Kafka
from tests.fakes.broker import JOIN, SYNC, FakeBroker
from tests.fakes.daemon import Run, a_run_on, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_slow_join_is_one_join() -> None:
    """S9: a request may last longer than a rebalance, so that a slow join is one join."""
    async with FakeBroker() as broker, running(Run(broker)) as run:

        async def slow(*_: Any) -> None:
            await asyncio.sleep(0.9)

        broker.answers[JOIN] = slow
        await run.consumes()
        assert broker.requests[JOIN] == 1
        assert run.rebuilds == {}
        await run.end()


async def test_one_assignor_is_one_join() -> None:
    """S15: aiokafka joins once per assignor; only one is configured."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        assert (broker.requests[JOIN], broker.requests[SYNC]) == (1, 1)
        broker.rebalance()
        await run.until(lambda: run.daemon.counters.rebalances["assigned"] == 2)
        await run.consumes()
        assert (broker.requests[JOIN], broker.requests[SYNC]) == (2, 2)
        assert run.rebuilds == {}


async def test_pinned_options() -> None:
    """L2, L3, L6, L7, S4, S9, S15, S16, F5: these options are pinned, whatever their defaults are."""
    kafka = Kafka()
    client = make_consumer(kafka)
    try:
        assert client._enable_auto_commit is False
        assert client._auto_offset_reset == "none"
        assert (client._key_deserializer, client._value_deserializer) == (None, None)
        assert client._client_rack is None
        assert client._group_instance_id is None
        assert client._partition_assignment_strategy == (Assignor,)
        assert client._client._metadata_max_age_ms == 30_000
        assert client._request_timeout_ms >= client._rebalance_timeout_ms + 5000
        assert client._fetch_max_wait_ms == 100
        assert client._check_crcs is True
        assert client._isolation_level == "read_committed"
    finally:
        await client.stop()


async def test_no_group_under_the_consumer_protocol() -> None:
    """aiokafka would join by the classic protocol: its part there is to fetch."""
    client = make_consumer(Kafka(group_protocol="consumer"))
    try:
        assert client._group_id is None
    finally:
        await client.stop()


def test_seek_to_committed_is_never_called() -> None:
    """L4: seek_to_committed() keeps the position where the committed offset is 0, so nothing here calls it."""
    sources = Path(consumer.kafka.client_source.__file__).parent.parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"seek_to_committed|wait_for\(", path.read_text())] == []
