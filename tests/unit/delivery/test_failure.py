"""What a handler raises is an instruction: retry, hold, reject or pause, in every ordering and in batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from consumer import Pause, Record, Reject, Retry
from consumer.delivery.decoding import Decoder
from consumer.errors import LetterDelayedError, LetterRefusedError
from consumer.outcome import HaltReason, Outcome
from consumer.record import TopicPartition
from consumer.settings.sections import DeadLetterSettings
from schemas.formats import Plain
from tests.unit.delivery.batches import a_batch_route
from tests.unit.delivery.engines import QUICK, Bench, a_route, an_engine_on
from tests.unit.delivery.handlers import ORDERINGS, Letters, Scripted, count
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import until

KINDS = ("plain", "at_once", "later")


def errors(bench: Bench, route: str = "r0") -> dict[str, int]:
    return {kind: count for (name, kind), count in bench.counters.handler_errors.items() if count and name == route}


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_fails_is_called_again(kind: str, ordering: str) -> None:
    """A record that fails twice and then succeeds is handled once, and all is committed."""
    source = LogSource(keyed([b"a", b"b", b"a", b"c", b"a"]))
    handler = Scripted({1: [ValueError(), OSError(), None], 2: [KeyError(), None]}, source.done)
    async with an_engine_on(source, a_route(handler.kind(kind)), retry=QUICK, ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert Counter(handler.calls) == {0: 1, 1: 3, 2: 2, 3: 1, 4: 1}
        assert (count(bench, Outcome.HANDLED), errors(bench), bench.counters.routes["r0"].retries) == (
            5,
            {"error": 3},
            3,
        )
        assert bench.engine.partitions[KEY].holds == set()
    assert [offset for offset in handler.handled if offset in (0, 2, 4)] == [0, 2, 4] or ordering == "unordered"
    if ordering == "partition":
        assert handler.handled == [0, 1, 2, 3, 4]
    assert not source.ahead


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_that_always_fails_becomes_a_dead_letter(kind: str, ordering: str) -> None:
    """After its attempts, or at once when rejected, a record becomes a dead letter; then the watermark moves."""
    source = LogSource(keyed([b"a", b"b", b"a", b"c"]))
    handler = Scripted({1: [ValueError()], 2: [Reject("private")]}, source.done)
    letters = Letters(source.done)
    letters.gate.clear()
    async with an_engine_on(
        source, a_route(handler.kind(kind)), retry=QUICK, ordering=ordering, letters=letters
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == 1)
        letters.gate.set()
        await until(lambda: source.committed == source.end)
        assert sorted(letters.causes) == [(1, "exhausted", "r0", 3), (2, "rejected", "r0", 1)]
        assert (count(bench, Outcome.HANDLED), count(bench, Outcome.DEAD_LETTERED)) == (2, 2)
        assert bench.counters.dead_letters["t", "exhausted"] == bench.counters.dead_letters["t", "rejected"] == 1
    assert not any("private" in cause.message for _, cause in letters.written)


@pytest.mark.parametrize("kind", [*KINDS, "batch"])
async def test_a_reject_code_is_kept(kind: str) -> None:
    """The code is in the letter's cause, in the log line and in the recent failures; the text is nowhere."""
    source = LogSource(keyed([b"a", b"b", b"c", b"d"]))
    error = Reject("private", code="unknown_agent")
    handler, letters = Scripted({1: [error]}, source.done), Letters(source.done)

    def reject_second(events: list[bytes], records: list[Record]) -> None:
        found = [index for index, record in enumerate(records) if record.offset == 1]
        source.done.update(record.offset for record in records)
        if found:
            raise Reject("private", code="unknown_agent", indexes=found)

    name = f"coded-{kind}"  # log lines are limited for each route
    route = a_batch_route(reject_second, name) if kind == "batch" else a_route(handler.kind(kind), name)
    with capture_logs() as logs:
        async with an_engine_on(source, route, retry=QUICK, letters=letters) as bench:
            bench.engine.assign([KEY])
            await until(lambda: source.committed == source.end)
            failures = bench.counters.failures.latest_first
    assert [cause.code for _, cause in letters.written] == ["unknown_agent"]
    assert [each["code"] for each in logs if each["event"] == "record_dead_lettered"] == ["unknown_agent"]
    assert ["'unknown_agent'" in each.error for each in failures] == [True]
    assert "private" not in str((letters.written, logs, failures))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_class_of_a_cause_is_kept(kind: str) -> None:
    """Log lines, letter and recent failures name the class of an exception's cause, and not its text."""
    source = LogSource(keyed([b"a"]))
    error = RuntimeError("private")
    error.__cause__ = KeyError("private")
    handler, letters = Scripted({0: [error]}, source.done), Letters(source.done)
    name = f"caused-{kind}"  # log lines are limited for each route
    with capture_logs() as logs:
        async with an_engine_on(source, a_route(handler.kind(kind), name), retry=QUICK, letters=letters) as bench:
            bench.engine.assign([KEY])
            await until(lambda: source.committed == source.end)
            failures = bench.counters.failures.latest_first
    described = [
        *(cause.message for _, cause in letters.written),
        *(each["error"] for each in logs if each["event"] == "call_failed"),
        *(each["message"] for each in logs if each["event"] == "record_dead_lettered"),
        *(each.error for each in failures),
    ]
    assert len(described) == 1 + 2 + 1 + 2
    assert all("RuntimeError" in each and each.endswith(", caused by KeyError") for each in described)
    assert "private" not in str((letters.written, logs, failures))


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        Retry(after=0.001),
        Pause(after=0.001),
        ConnectionResetError(),
        ExceptionGroup("", [ConnectionResetError(), Pause()]),
    ],
)
async def test_instructions_without_a_limit(error: Exception, kind: str, ordering: str) -> None:
    """Retry, Pause, a lost connection and a group of such count no attempt: the record is called until it succeeds."""
    source = LogSource(keyed([b"a", b"b", b"a", b"c"]))
    handler = Scripted({1: [error] * 10 + [None]}, source.done)
    async with an_engine_on(
        source, a_route(handler.kind(kind)), retry=QUICK, ordering=ordering, letters=Letters()
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert Counter(handler.calls) == {0: 1, 1: 11, 2: 1, 3: 1}
        assert sum(errors(bench).values()) == 10
        assert bench.engine.partitions[KEY].pauses == set()


@pytest.mark.parametrize("kind", [*KINDS, "batch"])
async def test_a_route_has_a_retry_policy(kind: str) -> None:
    """The number of attempts and ``pause_on`` of a route hold for that route alone."""
    source = LogSource(keyed([b"a"] * 4))
    script: dict[int, list[BaseException | None]] = {1: [LookupError()] * 5 + [None], 2: [ValueError()]}
    first, second = Scripted(script), Scripted({2: [ValueError()], 3: [LookupError()]}, source.done)
    letters = Letters(source.done)

    def batched(_events: list[bytes], records: list[Record]) -> None:
        for record in records:
            if record.offset not in first.handled:
                first.answer(record)

    route = a_batch_route(batched) if kind == "batch" else a_route(first.kind(kind))
    policy = msgspec.structs.replace(QUICK, attempts=5)
    routes = [msgspec.structs.replace(route, pause_on=(LookupError,), retry=policy), a_route(second.plain, "r1")]
    async with an_engine_on(source, *routes, retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert errors(bench)["pause"] == 5
        assert errors(bench, "r1") == {"error": 6}
    singles = 5 if kind == "batch" else 0  # after five calls of the batch, five of the record alone
    assert Counter(first.calls) == {0: 1, 1: 6, 2: 5 + singles, 3: 1}
    found = [(2, "exhausted", "r0", 5), (2, "exhausted", "r1", 3), (3, "exhausted", "r1", 3)]
    assert sorted(letters.causes) == found


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_pause_starts_nothing_until_the_same_record_gets_through(kind: str, ordering: str) -> None:
    """While a record pauses its partition, no other record of the partition starts."""
    source = LogSource(keyed([b"%d" % number for number in range(20)]))
    down = True

    async def handle(_event: bytes, record: Record) -> None:
        if kind == "later":
            await asyncio.sleep(0)
        calls.append(record.offset)
        if record.offset >= 3 and down:
            raise Pause(after=0.002)
        source.done.add(record.offset)

    def plain(_event: bytes, record: Record) -> None:
        calls.append(record.offset)
        if record.offset >= 3 and down:
            raise Pause(after=0.002)
        source.done.add(record.offset)

    calls: list[int] = []
    async with an_engine_on(
        source, a_route(plain if kind == "plain" else handle), retry=QUICK, ordering=ordering, concurrency=4
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: calls.count(3) > 3)
        assert max(calls) < 3 + 4
        begun = set(calls)
        await until(lambda: calls.count(3) > 6)
        assert set(calls) == begun
        assert [hold.kind for hold in bench.engine.partitions[KEY].held] == ["pause"] * len(begun - {0, 1, 2})
        down = False
        await until(lambda: source.committed == source.end)
    assert not source.ahead


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_what_cannot_be_decoded_becomes_a_dead_letter(ordering: str) -> None:
    """Undecodable bytes become a dead letter of the route ``none``, unchanged; other records go on."""

    def decode(value: bytes) -> bytes:
        if value == b"bad":
            raise ValueError
        return value

    records = keyed([b"a", b"a", b"b", b"a"])
    records[1] = records[1]._replace(value=b"bad")
    source = LogSource(records)
    handler, letters = Scripted({0: [ValueError(), None]}, source.done), Letters(source.done)
    async with an_engine_on(
        source,
        a_route(handler.later),
        decoder=Decoder(Plain(decode), 1000),
        retry=QUICK,
        ordering=ordering,
        letters=letters,
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert letters.causes == [(1, "undecodable", "none", 0)]
        assert letters.values == [b"bad"]
        assert (
            bench.counters.outcomes["none", Outcome.DEAD_LETTERED]
            == bench.counters.decode_errors["t", "undecodable"]
            == 1
        )


async def test_a_letter_that_is_delayed_or_refused() -> None:
    """A delayed letter holds its partition and is written again; a refused letter halts it."""
    source = LogSource(keyed([b"a"] * 4))
    handler = Scripted({1: [Reject()], 2: [Reject()]}, source.done)
    letters = Letters(
        source.done, [LetterDelayedError("x"), LetterDelayedError("x"), None, LetterRefusedError("no topic")]
    )
    async with an_engine_on(source, a_route(handler.plain), retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].halt)
        halt = bench.engine.partitions[KEY].halt
        assert halt is not None
        assert (halt.reason, halt.offset) == (HaltReason.NO_DEAD_LETTER, 2)
        assert "no topic" in halt.explanation
        await until(lambda: source.committed == 2)


async def test_the_fuse_halts_all() -> None:
    """When most of a full window fails no more dead letters are written, and every partition halts."""
    source = LogSource(keyed([b"a"] * 100))
    handler = Scripted({offset: [Reject()] for offset in range(20, 100)}, source.done)
    letters = Letters(source.done)
    limits = DeadLetterSettings(limit_ratio=0.5, limit_window_records=20)
    async with an_engine_on(source, a_route(handler.plain), letters=letters, dead_letter=limits) as bench:
        bench.engine.assign([KEY, TopicPartition("t", 1)])
        await until(lambda: bench.engine.partitions[KEY].halt)
        halts = [partition.halt for partition in bench.engine.partitions.values()]
        assert [halt.reason for halt in halts if halt is not None] == [HaltReason.FUSE] * 2
        await until(lambda: len(letters.written) == 10)


async def test_several_routes_only_the_one_that_failed_is_called_again() -> None:
    """Routes run in file order; each is retried alone, its letter names it, and later routes get the record too."""
    source = LogSource(keyed([b"a"] * 3))
    first, second, third = Scripted({}), Scripted({1: [ValueError()]}), Scripted({1: [ValueError(), None]}, source.done)
    letters = Letters(source.done)
    routes = [a_route(first.plain, "r0"), a_route(second.later, "r1"), a_route(third.plain, "r2")]
    async with an_engine_on(source, *routes, retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert (first.calls, second.calls) == ([0, 1, 2], [0, 1, 1, 1, 2])
        assert third.calls == [0, 1, 1, 2]
        assert letters.causes == [(1, "exhausted", "r1", 3)]
        assert count(bench, Outcome.DEAD_LETTERED, "r1") == 1


@pytest.mark.parametrize("with_records", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_batches(asynchronous: bool, with_records: bool) -> None:
    """Rejected indexes become dead letters and the rest is called again; in the end each record is called alone."""
    calls: list[list[bytes]] = []
    records = [record._replace(value=b"%d" % record.offset) for record in keyed([b"a"] * 12)]
    source = LogSource(records)

    def answer(events: list[bytes]) -> None:
        calls.append(list(events))
        if b"1" in events:
            raise Reject(indexes=[events.index(b"1"), 99])
        if b"5" in events:
            raise ValueError
        if b"9" in events and len(calls) < 14:
            raise Retry(after=0.001)
        source.done.update(int(event) for event in events)
        events.clear()

    def plain(events: list[bytes]) -> None:
        answer(events)

    async def waiting(events: list[bytes]) -> None:
        await asyncio.sleep(0)
        answer(events)

    def plain_records(events: list[bytes], _records: list[Record]) -> None:
        answer(events)

    async def waiting_records(events: list[bytes], _records: list[Record]) -> None:
        await asyncio.sleep(0)
        answer(events)

    handler: Any = {(False, False): plain, (True, False): waiting, (False, True): plain_records}.get(
        (asynchronous, with_records), waiting_records
    )
    letters = Letters(source.done)
    async with an_engine_on(source, a_batch_route(handler), retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
        assert letters.causes == [(1, "rejected", "r0", 1), (5, "exhausted", "r0", 3)]
        assert letters.values == [b"1", b"5"]
        assert (count(bench, Outcome.HANDLED), count(bench, Outcome.DEAD_LETTERED)) == (10, 2)
        assert calls[1] == [b"0", b"2", b"3"]
        assert calls[2:9] == [[b"4", b"5", b"6", b"7"]] * 3 + [[b"4"], [b"5"], [b"6"], [b"7"]]
    assert not source.ahead


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [Retry(after=100), Pause(after=100), ConnectionError()])
async def test_waits_are_given_up_at_a_stop(error: Exception, kind: str, ordering: str) -> None:
    """A stop does not wait for pending retries: their records stay uncommitted and are counted as abandoned."""
    source = LogSource(keyed([b"a", b"b", b"c"]))
    handler = Scripted({1: [error]}, source.done)
    slow = QUICK.__class__(initial_seconds=100, maximum_seconds=100)
    async with an_engine_on(source, a_route(handler.kind(kind)), retry=slow, ordering=ordering) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.engine.partitions[KEY].held)
        async with asyncio.timeout(1):
            await bench.engine.revoke(lost=False)
        assert bench.counters.routes["r0"].abandoned == 1
    assert source.committed == 1
    assert not source.ahead


async def test_a_batch_whose_time_comes_during_a_pause_is_called_after_it() -> None:
    """While a route pauses the partition no batch is called; it is called when the pause ends."""
    source = LogSource(keyed([b"a"] * 2))
    batches: list[list[bytes]] = []
    down = True

    def collect(events: list[bytes]) -> None:
        batches.append(list(events))
        source.done.update((0, 1))

    async def needs(_event: bytes, record: Record) -> None:
        if record.offset == 1 and down:
            raise Pause(after=0.005)

    routes = [a_batch_route(collect, "r0", max_records=10, max_seconds=0.01), a_route(needs, "r1")]
    async with an_engine_on(source, *routes, retry=QUICK) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r1"].retries > 10)
        assert batches == []
        down = False
        await until(lambda: source.committed == source.end)
    assert batches == [[b"x", b"x"]]
