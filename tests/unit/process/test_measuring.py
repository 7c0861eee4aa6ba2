"""End offsets: taken from answers to fetches, and asked for where these are old."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.partition.state import Partition
from consumer.process import measuring
from consumer.record import TopicPartition
from tests.fakes.broker import FETCH, LIST_OFFSETS, FakeBroker
from tests.fakes.daemon import a_run_on
from tests.unit.delivery.waiting import until

pytestmark = pytest.mark.usefixtures("quick")


async def nothing_new(version: int, response: Any, request: Any) -> Any:
    """Answer a fetch without records: the log ends at the offset that it asks for."""
    await asyncio.sleep(0.02)
    rest: tuple[Any, ...] = (0, [], -1, b"") if version >= 11 else (0, [], b"")
    at = 2 if version >= 9 else 1  # behind the leader's epoch
    rows = [(topic, [(each[0], 0, each[at], each[at], *rest) for each in found]) for topic, found in request.topics]
    return response(0, 0, 0, rows) if version >= 7 else response(0, rows)


async def test_an_answer_without_records_has_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end offset is that of the last answer to a fetch, also without records, and no broker is asked for it."""
    monkeypatch.setattr(measuring, "MEASURE_SECONDS", 60.0)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.answers[FETCH] = nothing_new
        partitions = run.engine.partitions.values()
        await run.until(lambda: all(each.lag.end_offset == each.position for each in partitions))
        asked, first = broker.requests[LIST_OFFSETS], min(each.lag.measured_at for each in partitions)
        await run.until(lambda: min(each.lag.measured_at for each in partitions) > first + 0.5)
        assert broker.requests[LIST_OFFSETS] == asked


async def test_brokers_are_asked_where_no_fetch_is_answered() -> None:
    """While no answer to a fetch comes, brokers are asked for the ends, and they count as heard."""
    async with FakeBroker() as broker, a_run_on(broker) as run:

        async def late(*_: Any) -> None:
            await asyncio.sleep(0.5)

        broker.answers[FETCH] = late
        asked, heard_at = broker.requests[LIST_OFFSETS], run.source.heard_at
        await run.until(lambda: broker.requests[LIST_OFFSETS] > asked + 1)
        assert run.source.heard_at > heard_at
        broker.answers.clear()
        await run.consumes()


class Asked:
    """A source that answers every question, and counts for each partition how often it was asked."""

    def __init__(self) -> None:
        self.counts: Counter[TopicPartition] = Counter()

    async def end_offsets(self, keys: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self.counts.update(keys)
        return dict.fromkeys(keys, 100)


async def test_partitions_that_are_worked_on_are_asked_for_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without answers to fetches, the end of a partition whose records are worked on is asked for again and again."""
    monkeypatch.setattr(measuring, "FLOWING_SECONDS", 0.01)
    monkeypatch.setattr(measuring, "MEASURE_SECONDS", 60.0)
    busy, idle = TopicPartition("t", 0), TopicPartition("t", 1)
    workers = [SimpleNamespace(idle=key == idle, partition=Partition(key, 1), begun_at=0.0) for key in (busy, idle)]
    engine = SimpleNamespace(workers=workers, partitions={each.partition.key: each.partition for each in workers})
    source: Any = Asked()
    asking = asyncio.create_task(measuring.Measuring(source, cast(Any, engine)).ask_forever())
    await until(lambda: source.counts[busy] > 5)
    assert source.counts[idle] == 1
    assert workers[0].partition.lag.end_offset == 100
    asking.cancel()
    await asyncio.wait([asking])
