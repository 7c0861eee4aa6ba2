"""Rare failures: odd exceptions, no free places, calls that outlive their epoch, letters that are cancelled."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from consumer import Pause, Record, Reject, Retry
from consumer.delivery.fuse import Fuse
from consumer.errors import DecodeError, LetterDelayedError
from consumer.outcome import Outcome
from consumer.record import Position
from tests.unit.delivery.batches import HOUR, a_batch_route
from tests.unit.delivery.engines import ONE_CALL, QUICK, a_route, an_engine_on
from tests.unit.delivery.handlers import ORDERINGS, Letters, Scripted, count
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import rounds, until


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    text: str = "private"


def circular() -> Exception:
    first, second = ValueError("private"), KeyError("private")
    first.__cause__, second.__cause__ = second, first
    return first


def deep() -> Exception:
    error: Exception = ValueError("private")
    for _ in range(20_000):
        following = ValueError("private")
        following.__context__, error = error, following
    return error


ODD: dict[str, Callable[[], BaseException]] = {
    "silent": SilentError,
    "frozen": FrozenError,
    "circular": circular,
    "deep": deep,
    "group": lambda: BaseExceptionGroup("private", [KeyboardInterrupt()]),
    "SystemExit": lambda: SystemExit("private"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "DecodeError": lambda: DecodeError("of their own", "of their own"),
}


@pytest.mark.parametrize("kind", ["plain", "at_once", "later", "routes", "batch", "batch_later"])
@pytest.mark.parametrize("odd", ODD)
async def test_whatever_is_raised_fails_one_record(odd: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is raised, only its record becomes a dead letter; all other records are handled."""
    source = LogSource(keyed([b"a"] * 4))
    letters = Letters(source.done)

    def handle(_event: bytes, record: Record) -> None:
        if record.offset == 1:
            error = ODD[odd]()
            raise error
        source.done.add(record.offset)

    async def at_once(event: bytes, record: Record) -> None:
        handle(event, record)

    async def later(event: bytes, record: Record) -> None:
        await asyncio.sleep(0)
        handle(event, record)

    def batch(events: list[bytes], records: list[Record]) -> None:
        for event, record in zip(events, records, strict=True):
            handle(event, record)

    async def batch_later(events: list[bytes], records: list[Record]) -> None:
        await asyncio.sleep(0)
        batch(events, records)

    if kind.startswith("batch"):
        routes = [a_batch_route({"batch": batch, "batch_later": batch_later}[kind])]
    else:
        routes = [a_route({"plain": handle, "at_once": at_once}.get(kind, later))]
    if kind == "routes":
        routes.append(a_route(lambda _event: None, "r1"))
    async with an_engine_on(source, *routes, retry=ONE_CALL, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.failures, seconds=2)
        assert bench.failures == []
        assert letters.causes == [(1, "exhausted", "r0", 1)]
        assert (count(bench, Outcome.HANDLED), count(bench, Outcome.DEAD_LETTERED)) == (3, 1)
    assert not source.ahead
    said = capfd.readouterr()
    assert "private" not in f"{letters.written}{said.out}{said.err}"


class Later(Retry):
    def __init__(self) -> None:
        """Say nothing to the base class."""


class Down(Pause):
    def __init__(self) -> None:
        """Say nothing to the base class."""


class Never(Reject):
    def __init__(self) -> None:
        """Say nothing to the base class."""


A_MOMENT: Any = Decimal("0.01")


@pytest.mark.parametrize("instruction", [Later, Down, lambda: Retry(after=A_MOMENT), lambda: Retry(after=10**400)])
async def test_instructions_that_a_user_subclassed(instruction: Callable[[], BaseException]) -> None:
    """A subclass without its base's constructor, or with another type of time, is followed or is an error."""
    source = LogSource(keyed([b"a"] * 3))
    calls: list[int] = []

    def handle(_event: bytes, record: Record) -> None:
        calls.append(record.offset)
        if calls.count(1) == 1 and record.offset == 1:
            raise instruction()
        source.done.add(record.offset)

    async with an_engine_on(source, a_route(handle), retry=QUICK) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.failures, seconds=2)
        assert bench.failures == []
    assert calls == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("rejection", "letters_of"),
    [
        (Never, [0, 1, 2, 3]),
        (lambda: Reject(indexes=[True, 2.0, Decimal(3)]), [1, 2, 3]),  # type: ignore[list-item]
        (lambda: Reject(indexes=["a", None, [0], -1, 4, 1, 1]), [1]),  # type: ignore[list-item]
        (lambda: Reject(indexes=(index for index in (3, 0))), [0, 3]),  # type: ignore[arg-type]
    ],
)
async def test_odd_indexes(rejection: Callable[[], BaseException], letters_of: list[int]) -> None:
    """Values equal to an index of the batch reject that record; all other values are ignored."""
    source = LogSource(keyed([b"a"] * 4))
    letters = Letters(source.done)
    calls = 0

    def handle(events: list[bytes], records: list[Record]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise rejection()
        source.done.update(record.offset for record in records)

    async with an_engine_on(source, a_batch_route(handle), retry=ONE_CALL, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.failures, seconds=2)
        assert bench.failures == []
    assert [offset for offset, _ in letters.written] == letters_of
    assert not source.ahead


async def test_one_exception_raised_again_and_again_does_not_grow() -> None:
    """One exception object that is raised again and again keeps a short traceback."""
    source = LogSource(keyed([b"a"]))
    down = ConnectionError()
    calls = 0

    async def handle(_event: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls < 30:
            raise down

    async with an_engine_on(source, a_route(handle), retry=QUICK) as bench:
        bench.engine.assign([KEY])
        await until(lambda: calls == 30)
    depth, trace = 0, down.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 10


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_call_that_cancels_its_task_on_its_way_out(ordering: str, kind: str, raises: bool) -> None:
    """A call that cancels its task as it ends does not end the partition's work."""
    source = LogSource(keyed([b"a", b"b", b"c"]), chunk_records=1)

    def handle(_event: bytes, record: Record) -> None:
        if record.offset == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if raises:
                raise ValueError

    async def handle_async(event: bytes, record: Record) -> None:
        handle(event, record)

    async with an_engine_on(
        source, a_route(handle if kind == "plain" else handle_async), ordering=ordering, letters=Letters()
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end or bench.failures, seconds=1)
        source.records += keyed([b"a"], first=source.end)
        source.end += 1
        await until(lambda: source.committed == source.end or bench.failures, seconds=1)


def test_a_second_letter_long_after_the_first() -> None:
    """A record whose second letter comes after the first has left the window counts once."""
    fuse = Fuse(0.5, 10)
    record = Position("t", 0, 0)
    assert [fuse.trips(record, consumed) for consumed in (5, 6, 40, 41)] == [False] * 4


async def test_a_pause_ends_though_a_key_waits_for_it() -> None:
    """A runner that waits for a pause gives its place to the record that pauses."""
    source = LogSource(keyed([b"b", b"b", b"a"]))
    go = asyncio.Event()
    handler = Scripted({2: [Pause(after=0.001)] * 3 + [None]}, source.done)

    async def handle(_event: bytes, record: Record) -> None:
        if record.offset == 0:
            await go.wait()
        handler.answer(record)

    async with an_engine_on(source, a_route(handle), retry=QUICK, ordering="key", concurrency=2) as bench:
        bench.engine.assign([KEY])
        await until(lambda: handler.calls)
        go.set()
        await until(lambda: source.committed == source.end, seconds=2)
    assert sorted(handler.handled) == [0, 1, 2]


async def test_a_pause_ends_though_a_letter_is_delayed() -> None:
    """A delayed letter does not wait for a pause, because it holds the place that the pause needs to end."""
    source = LogSource(keyed([b"a", b"b"]))
    handler = Scripted({0: [Reject()], 1: [Pause(after=0.02)] * 3 + [None]}, source.done)
    letters = Letters(source.done, [LetterDelayedError("away")] * 3)
    async with an_engine_on(
        source, a_route(handler.at_once), retry=QUICK, ordering="unordered", concurrency=2, letters=letters
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end, seconds=2)


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_letters_on_their_way_are_bounded_by_room(ordering: str) -> None:
    """A letter that hangs holds no lane, whatever the ordering; room bounds how many are on their way."""
    source = LogSource(keyed([b"a"] * 50))
    letters = Letters(source.done)
    letters.gate.clear()
    handler = Scripted({offset: [Reject()] for offset in range(50)})
    async with an_engine_on(
        source, a_route(handler.plain), ordering=ordering, max_in_flight_records=3, letters=letters
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: len(handler.calls) == 3)
        await rounds()
        assert len(handler.calls) == 3
        letters.gate.set()
        await until(lambda: source.committed == source.end)


@pytest.mark.parametrize("kind", ["async", "batch"])
async def test_a_call_that_the_drain_cancels_is_no_dead_letter(kind: str) -> None:
    """A call that turns its cancellation into another error leaves its record undone, and no letter is written."""
    source = LogSource(keyed([b"a"] * 2))
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Reject from None

    async def handle(_event: bytes) -> None:
        await waits()

    async def batch(_events: list[bytes]) -> None:
        await waits()

    letters = Letters(source.done)
    route = a_route(handle) if kind == "async" else a_batch_route(batch, max_records=1)
    async with an_engine_on(source, route, letters=letters, drain_seconds=0.02) as bench:
        bench.engine.assign([KEY])
        await begun.wait()
        await bench.engine.revoke(lost=False)
        assert (letters.written, source.commits) == ([], [])
        assert bench.counters.routes["r0"].abandoned == 1


@pytest.mark.parametrize("rejects", [False, True])
async def test_a_call_that_outlives_its_epoch_writes_no_letter(rejects: bool) -> None:
    """A call that ends in the next epoch starts no other route and writes no letter: the next owner has its record."""
    source = LogSource(keyed([b"a"]))
    release = asyncio.Event()
    second: list[bytes] = []

    async def stubborn(_event: bytes) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        if rejects:
            raise Reject

    letters = Letters(source.done)
    routes = [a_route(stubborn, "r0"), a_route(second.append, "r1")]
    async with an_engine_on(source, *routes, letters=letters, drain_seconds=0.02) as bench:
        bench.engine.assign([KEY])
        await until(lambda: bench.counters.routes["r0"].waiting)
        await bench.engine.revoke(lost=False)
        release.set()
        await rounds()
        assert (letters.written, second, source.commits) == ([], [], [])


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_a_letter_whose_write_is_cancelled_is_written_again(ordering: str) -> None:
    """A client that is closed during a write cancels it; the partition goes on and the letter is written again."""
    source = LogSource(keyed([b"a"] * 3))
    handler = Scripted({1: [Reject()]}, source.done)

    class Vanishing(Letters):
        vanished = False

        async def write(self, key: Any, raw: Any, cause: Any) -> None:
            if not self.vanished:
                self.vanished = True
                raise asyncio.CancelledError
            await super().write(key, raw, cause)

    async with an_engine_on(
        source, a_route(handler.later), retry=QUICK, letters=Vanishing(source.done), ordering=ordering
    ) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end, seconds=2)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("kind", ["plain", "later"])
async def test_a_letter_that_hangs_is_given_up_at_a_stop(
    kind: str, ordering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop does not wait for a slow letter: its record stays undone, and no hold is left."""
    monkeypatch.setattr("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.01)
    source = LogSource(keyed([b"a", b"b", b"c"]))
    handler = Scripted({1: [Reject()]}, source.done)
    letters = Letters(source.done)
    letters.gate.clear()
    async with an_engine_on(
        source, a_route(handler.kind(kind)), letters=letters, ordering=ordering, commit_interval_seconds=HOUR
    ) as bench:
        bench.engine.assign([KEY])
        partition = bench.engine.partitions[KEY]
        await until(lambda: partition.held)
        async with asyncio.timeout(1):
            await bench.engine.revoke(lost=False)
        assert (source.committed, partition.holds, bench.counters.routes["r0"].abandoned) == (1, set(), 1)
    assert not source.ahead
