"""Every path by which a call may start asks the gate, and every exit of the flat loop leaves true numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from consumer import Pause, Record, Retry
from consumer.delivery.decoding import Decoder
from consumer.observe.remedy import DRAINS, OR_RUN
from schemas.formats import Plain
from tests.unit.delivery.batches import HOUR, a_batch_route
from tests.unit.delivery.engines import QUICK, a_route, an_engine_on
from tests.unit.delivery.handlers import Letters
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY, RawRecord
from tests.unit.delivery.waiting import until


async def test_a_match_that_raises_puts_its_record_into_no_batch() -> None:
    """A record without a route is a dead letter alone: a batch route that matched it does not get it."""

    def matches(event: bytes, _raw: Any) -> bool:
        if event == b"bad":
            raise TypeError
        return True

    got: list[bytes] = []

    def batch(events: list[bytes]) -> None:
        got.extend(events)

    source = LogSource([RawRecord(offset, b"bad" if offset == 1 else b"x") for offset in range(4)])
    letters = Letters(source.done)
    single = msgspec.structs.replace(a_route(lambda _event: None, "s"), matches=matches)
    async with an_engine_on(
        source, a_batch_route(batch, "b", max_records=3, max_seconds=0.05), single, letters=letters
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert (got, letters.causes) == ([b"x"] * 3, [(1, "undecodable", "none", 0)])


async def test_a_record_that_pauses_waits_for_the_group_too() -> None:
    """While the group may have given the partition away, not even the record that paused it is called again."""
    calls: list[int] = []

    async def handle(_event: bytes, record: Record) -> None:
        calls.append(record.offset)
        if len(calls) == 1:
            raise Pause(after=0.02)

    source = LogSource(keyed([b"a"] * 2))
    async with an_engine_on(source, a_route(handle)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: calls)
        bench.engine.doubt(doubtful=True)
        await asyncio.sleep(0.06)
        assert calls == [0]
        bench.engine.doubt(doubtful=False)
        await until(lambda: source.committed == source.end)


async def test_the_next_route_waits_for_the_pause_of_another_record() -> None:
    """A record that got through its own pause goes on to its next route only when no other record pauses."""
    second: list[int] = []
    paused = {0, 1}

    async def first(_event: bytes, record: Record) -> None:
        await asyncio.sleep(0)
        if record.offset in paused:
            paused.discard(record.offset)
            raise Pause(after=0.02 if record.offset == 0 else 0.1)

    def then(_event: bytes, record: Record) -> None:
        second.append(len(bench.engine.partitions[KEY].pauses))

    source = LogSource(keyed([b"a", b"b"]))
    async with an_engine_on(source, a_route(first, "r0"), a_route(then, "r1"), ordering="key") as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert second == [0, 0]


async def test_a_route_after_a_dead_letter_gets_the_event_as_it_was() -> None:
    """What a handler did to its event before it failed is not seen by the routes behind it."""
    got: list[Any] = []

    def spoils(event: dict[str, int]) -> None:
        event.pop("x")
        raise ValueError

    source = LogSource([RawRecord(0, b'{"x":1}')])
    decoder = Decoder(Plain(msgspec.json.Decoder(dict[str, int]).decode), 1000)
    async with an_engine_on(
        source,
        a_route(spoils, "r0"),
        a_route(got.append, "r1"),
        decoder=decoder,
        retry=QUICK,
        letters=Letters(source.done),
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: got)
    assert got == [{"x": 1}]


async def test_a_batch_keeps_to_the_room() -> None:
    """``max_in_flight_records`` bounds batches too, however many records a batch may have."""
    release = asyncio.Event()

    async def batch(_events: list[bytes]) -> None:
        await release.wait()

    source = LogSource(keyed([b"a"] * 50))
    async with an_engine_on(
        source, a_batch_route(batch, max_records=500, max_seconds=0.01), max_in_flight_records=10
    ) as bench:
        bench.engine.assign([KEY])
        await asyncio.sleep(0.05)
        assert 0 < bench.engine.partitions[KEY].in_flight[0] <= 10
        release.set()
        await until(lambda: source.committed == source.end)


async def test_a_halt_in_the_flat_loop_leaves_nothing_in_flight_but_its_record() -> None:
    """What was collected before the record that halts is called, and counted out again."""
    got: list[bytes] = []

    def decode(value: bytes) -> bytes:
        if value == b"bad":
            raise ValueError
        return value

    def batch(events: list[bytes]) -> None:
        got.extend(events)

    source = LogSource([*keyed([b"a"] * 4), RawRecord(4, b"bad")])
    async with an_engine_on(
        source,
        a_batch_route(batch, max_records=100, max_seconds=HOUR),
        decoder=Decoder(Plain(decode), 1000),
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == 4)
        partition = bench.engine.partitions[KEY]
        assert (len(got), partition.in_flight) == (4, (0, 0))


@pytest.mark.parametrize(
    ("waits", "passed"),
    [(HOUR, "; the command also passes records without an outcome, at offset 0, 1"), (None, "")],
    ids=["in retry", "in a call"],
)
async def test_a_halt_says_what_ends_it_after_its_drain(waits: float | None, passed: str) -> None:
    """The command of a halt is given when what was started has ended, and names each record that it would pass."""
    release = asyncio.Event()

    async def handle(_event: bytes, record: Record) -> None:
        if record.offset == 2:
            raise ValueError
        if waits is not None:
            raise Retry(after=waits)
        await release.wait()

    source = LogSource(keyed([b"a", b"b", b"c"]))
    async with an_engine_on(source, a_route(handle), ordering="key") as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: partition.halt is not None)
        await asyncio.sleep(0.02)
        assert partition.halt is not None
        assert (partition.halt.remedy == DRAINS) == (waits is None)
        release.set()
        await until(lambda: partition.halt is not None and partition.halt.remedy != DRAINS)
        assert partition.halt.remedy == f"mend it{passed}{OR_RUN}move"


async def test_many_retries_that_are_due_let_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that come due together take turns like everything else that keeps the loop."""
    monkeypatch.setattr("consumer.delivery.turns.SLICE_SECONDS", -1.0)  # a turn is over at once
    retried: set[int] = set()
    rounds_seen = 0

    def handle(_event: bytes, record: Record) -> None:
        if record.offset not in retried:
            retried.add(record.offset)
            raise Retry(after=0.05)
        seen.append(rounds_seen)

    async def count_rounds() -> None:
        nonlocal rounds_seen
        while True:
            rounds_seen += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    source = LogSource(keyed([b"%d" % number for number in range(400)]))
    counting = asyncio.create_task(count_rounds())
    async with an_engine_on(source, a_route(handle), ordering="unordered") as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    counting.cancel()
    assert len(seen) == 400
    assert len(set(seen)) > 200


async def test_a_batch_of_a_lost_partition_takes_no_first_step() -> None:
    """A batch that was to be called in the round in which its partition is lost is not called."""
    calls: list[int] = []

    async def batch(events: list[bytes]) -> None:
        calls.append(len(events))

    source = LogSource(keyed([b"a"] * 3))
    async with an_engine_on(source, a_batch_route(batch, max_records=100, max_seconds=HOUR)) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].in_flight[0] == 3)
        bench.engine._workers[KEY].work.batches[0].call_now()
        await bench.engine.revoke(lost=True)
    assert calls == []
