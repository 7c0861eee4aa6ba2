"""What waits in a partition ends with it: singles of a batch, records that are due, workers that wait for a turn."""

from __future__ import annotations

import asyncio
import time

from consumer.instructions import Retry
from consumer.outcome import HaltReason
from tests.unit.delivery.batches import HOUR, a_batch_route
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.source import KEY, MemorySource, a_chunk
from tests.unit.delivery.waiting import rounds, until


async def test_no_single_begins_in_doubt() -> None:
    """A doubt in the middle of a round of singles starts none of those that are left."""
    singles, go = [], asyncio.Event()

    async def handle(events: list[bytes]) -> None:
        if len(events) > 1:
            raise ValueError
        singles.append(1)
        await go.wait()

    source = MemorySource()
    source.give(a_chunk(0, 3))
    async with an_engine_on(source, a_batch_route(handle, max_records=3, max_seconds=0.01)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: singles)
        bench.engine.doubt(doubtful=True)
        go.set()
        await rounds()
        assert len(singles) == 1
        bench.engine.doubt(doubtful=False)
        await until(lambda: len(singles) == 3)


async def test_a_worker_that_waits_for_its_turn_ends_at_a_revoke() -> None:
    """A worker that has a record to call again, and waits for its turn, does not keep the drain waiting."""

    def handle(_event: bytes) -> None:
        raise Retry(after=0.02)

    source = MemorySource()
    source.give(a_chunk(0, 1))
    async with an_engine_on(source, a_route(handle), drain_seconds=30.0, commit_interval_seconds=HOUR) as bench:
        bench.engine.assign([KEY])
        (workers,) = bench.engine.workers
        await until(lambda: workers._parking._heap)
        workers.turns.end = 0.0
        await until(lambda: workers._parking.ready and workers.turns._waiting)
        began = time.monotonic()
        await bench.engine.revoke(lost=False)
        assert time.monotonic() - began < 20  # the drain has a limit of 30 s


async def test_a_record_that_is_due_is_abandoned_once() -> None:
    """A record that was due when its partition halted counts once, also after the revoke."""

    def handle(_event: bytes) -> None:
        raise Retry(after=0.01)

    source = MemorySource()
    source.give(a_chunk(0, 1))
    async with an_engine_on(source, a_route(handle), commit_interval_seconds=HOUR) as bench:
        bench.engine.assign([KEY])
        (workers,) = bench.engine.workers
        await until(lambda: workers._parking._heap)
        bench.engine.doubt(doubtful=True)
        await until(lambda: workers._parking.ready)
        bench.engine.halt(KEY, HaltReason.CORRUPT_BATCH, 1, "broken")
        await rounds()
        await bench.engine.revoke(lost=False)
        assert bench.counters.routes["r0"].abandoned == 1
