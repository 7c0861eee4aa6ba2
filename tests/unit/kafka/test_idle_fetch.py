"""A fetch waits longer at the brokers while nothing is left out of it, and only then."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from aiokafka import TopicPartition as ClientPartition

from consumer.kafka.client_internals import IDLE_FETCH_MS
from tests.fakes.broker import FETCH, FakeBroker
from tests.fakes.daemon import PATHS, a_run_on

pytestmark = pytest.mark.usefixtures("quick")


class Waits:
    """Answers fetches as usual, or without records while ``dry``; notes how long each may wait, and of what it is."""

    def __init__(self, broker: FakeBroker) -> None:
        self.dry = False
        self.seen: dict[frozenset[int], set[int]] = defaultdict(set)
        """Waits in milliseconds, by partitions."""
        self._broker = broker

    async def __call__(self, version: int, response: Any, request: Any) -> Any:
        await asyncio.sleep(0.005)
        self.seen[frozenset(row[0] for _, rows in request.topics for row in rows)].add(request.max_wait_time)
        if not self.dry:
            return self._broker.usual(FETCH, version, response, request)
        rest: tuple[Any, ...] = (0, [], -1, b"") if version >= 11 else (0, [], b"")
        at = 2 if version >= 9 else 1
        rows = [(topic, [(each[0], 0, each[at], each[at], *rest) for each in found]) for topic, found in request.topics]
        return response(0, 0, 0, rows) if version >= 7 else response(0, rows)


@PATHS
async def test_an_idle_fetch_waits_longer(path: str) -> None:
    """Fetches of all partitions without records wait longer, and no fetch that leaves one out does."""
    async with FakeBroker() as broker, a_run_on(broker, path=path) as run:
        waits = broker.answers[FETCH] = Waits(broker)
        await run.consumes()
        waits.dry = True
        everything = frozenset(range(broker.partitions))
        await run.until(lambda: IDLE_FETCH_MS in waits.seen[everything])
        waits.dry = False
        await run.consumes()
        assert all(IDLE_FETCH_MS not in found for which, found in waits.seen.items() if which != everything)
        broker.answers.clear()


async def test_a_paused_partition_keeps_fetches_short() -> None:
    """While a partition is paused, as for a new position, its next fetch waits for no long one."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        waits = broker.answers[FETCH] = Waits(broker)
        waits.dry = True
        await run.until(lambda: IDLE_FETCH_MS in waits.seen[frozenset(range(broker.partitions))])
        paused = ClientPartition(broker.topic, 0)
        run.client.pause(paused)
        await run.until(lambda: waits.seen[frozenset({1})])
        waits.seen.clear()
        await run.until(lambda: waits.seen[frozenset({1})])
        assert IDLE_FETCH_MS not in waits.seen[frozenset({1})]
        run.client.resume(paused)
        waits.dry = False
        broker.answers.clear()
