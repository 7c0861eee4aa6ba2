"""Many dead letters at once: what a stop waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer import Reject
from tests.unit.delivery.batches import HOUR
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.handlers import Letters, Scripted
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.observer import NO_FUSE
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import until


async def test_letters_that_kafka_takes_slowly_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for slow letters as long as Kafka goes on taking them: their records are done and not repeated."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.2)
    source = LogSource(keyed([None] * 20))
    handler = Scripted({offset: [Reject()] for offset in range(20)}, source.done)
    places = asyncio.Semaphore(1)

    class OneByOne(Letters):
        async def write(self, key: Any, raw: Any, cause: Any) -> None:
            async with places:
                await asyncio.sleep(0.03)
                await super().write(key, raw, cause)

    async with an_engine_on(
        source, a_route(handler.plain), letters=OneByOne(source.done), dead_letter=NO_FUSE, commit_interval_seconds=HOUR
    ) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: partition.held)
        await bench.engine.revoke(lost=False)
        assert (source.committed, bench.counters.routes["r0"].abandoned) == (source.end, 0)
