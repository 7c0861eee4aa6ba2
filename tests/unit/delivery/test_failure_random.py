"""Failures on random schedules: whatever fails, waits or is revoked, nothing is lost, passed or out of order."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import Pause, Record, Reject, Retry
from consumer.dead_letters.cause import NO_ROUTE, Cause
from consumer.delivery.decoding import Decoder
from consumer.errors import CorruptBatchError, DecodeError, LetterDelayedError, LetterRefusedError
from consumer.outcome import HaltReason, Outcome
from consumer.partition.chunk import Chunk
from consumer.record import RawRecord as AnyRecord
from consumer.record import TopicPartition
from consumer.routes.route import Route
from consumer.settings.sections import DeadLetterSettings, RetrySettings
from tests.unit.delivery.engines import Bench, a_route, an_engine_on
from tests.unit.delivery.source import KEY, RawRecord
from tests.unit.delivery.test_batch import a_batch_route
from tests.unit.delivery.test_lanes import LogSource, check_commits_never_fall

ATTEMPTS = 3
TICK_SECONDS = 0.001
ROUNDS = 5_000
"""Of the event loop, in which everything must have come to its end: thousands of waits."""
NO_FUSE = DeadLetterSettings(limit_ratio=2.0)
SINGLE, BATCHED = ("plain", "wrapped", "at_once", "later"), ("batch", "batch_later", "batch_records")


class TickingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves a little in each round: waits are long for those who wait, and cost no time."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        self.now += TICK_SECONDS
        super()._run_once()  # type: ignore[misc]


class Work(SimpleNamespace):
    """A drawn schedule."""

    records: list[RawRecord]
    bad: dict[int, str]
    """Offsets of records that are no events: ``undecodable``, ``bad_header``, ``broken`` (pulling it raises, once)."""
    kinds: list[str]
    """How each route's handler is made; the routes are r0, r1…"""
    wants: dict[tuple[int, int], bool]
    scripts: dict[tuple[int, int], list[str]]
    """What the calls of a route with a record do, one after the other; the last one for ever."""
    yields: dict[int, int]
    letters: dict[int, list[str]]
    """What becomes of the writes of a record's letters before they are taken."""
    delivery: dict[str, Any]
    cut: int
    size: int
    revokes: list[int]
    eager: bool
    """Whether the loop is given back after each record, as if each took long."""


ANSWERS = ("error", "retry", "pause", "connection")


@st.composite
def schedules(draw: st.DrawFn, refused: bool = False) -> Work:
    records, bad, yields, offset = [], {}, {}, -1
    keys = st.sampled_from([None, b"", b"a", b"b", b"c"])
    for _ in range(draw(st.integers(1, 14))):
        offset += draw(st.sampled_from([1, 1, 1, 3]))
        tombstone = draw(st.integers(0, 11)) == 0
        records.append(RawRecord(offset, None if tombstone else b"%d" % offset, draw(keys)))
        yields[offset] = draw(st.sampled_from([0, 0, 1, 3, 30]))
        if not tombstone and draw(st.integers(0, 7)) == 0:
            bad[offset] = draw(st.sampled_from(["undecodable", "bad_header", "broken"]))
    if draw(st.integers(0, 2)):
        kinds = [draw(st.sampled_from(SINGLE + BATCHED))]
    else:
        kinds = [draw(st.sampled_from(SINGLE + BATCHED)) for _ in range(draw(st.integers(2, 3)))]
    numbers = [record.offset for record in records]
    wants, scripts = {}, {}
    for number in numbers:
        for route in range(len(kinds)):
            wants[number, route] = draw(st.integers(0, 4)) > 0
            steps = draw(
                st.lists(st.tuples(st.sampled_from(ANSWERS), st.integers(1, 4)), max_size=2)
                if draw(st.integers(0, 2)) == 0
                else st.just([])
            )
            end = draw(st.sampled_from(["", "", "reject", "reject_all", "error"])) if steps else ""
            scripts[number, route] = [step for step, times in steps for _ in range(times)] + [end]
    kinds_of_letters = ["delayed", "slow", "hang"] + ["refused"] * refused
    return Work(
        records=records,
        bad=bad,
        kinds=kinds,
        wants=wants,
        scripts=scripts,
        yields=yields,
        letters={each: draw(st.lists(st.sampled_from(kinds_of_letters), max_size=3)) for each in numbers},
        delivery={
            "ordering": draw(st.sampled_from(["partition", "key", "unordered"])),
            "concurrency": draw(st.integers(1, 4)),
            "max_in_flight_records": draw(st.integers(1, 12)),
        },
        cut=draw(st.integers(1, 10)),
        size=draw(st.integers(1, 5)),
        revokes=draw(st.lists(st.integers(0, 120), max_size=3)),
        eager=draw(st.booleans()),
    )


class Faulty:
    """A raw record with a header that cannot be read."""

    def __init__(self, whole: AnyRecord) -> None:
        self.offset, self.key, self.timestamp, self.headers = whole.offset, whole.key, 0, ()
        self._whole = whole

    @property
    def value(self) -> bytes:
        raise DecodeError("bad_header", "a header key is not UTF-8", self._whole)


class FaultySource(LogSource):
    """A log in which some records cannot be read; the rest of a chunk that is broken there is salvaged."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.records, work.cut)
        self.work = work
        self.from_offset = 0
        """Where this epoch began."""
        self._last: list[AnyRecord] = []

    def take(self, key: TopicPartition) -> Chunk | None:
        chunk = super().take(key)
        if chunk is None:
            return None
        assert chunk.reread is not None
        taken = self._last = list(chunk.reread())
        return Chunk(chunk.first_offset, self._read(taken), chunk.next_offset, lambda: self._read(taken))

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        if not isinstance(error, UnicodeError):
            raise CorruptBatchError(position, "not what was expected", position + 1)
        rest = [record for record in self._last if record.offset >= position]
        return Chunk(position, self._salvaged(rest), self.position, lambda: self._salvaged(rest))

    def _read(self, records: list[AnyRecord]) -> Iterator[Any]:
        for record in records:
            if self.work.bad.get(record.offset) == "broken":
                raise UnicodeError
            yield Faulty(record) if self.work.bad.get(record.offset) == "bad_header" else record

    def _salvaged(self, records: list[AnyRecord]) -> Iterator[Any]:
        for record in records:
            yield Faulty(record) if self.work.bad.get(record.offset) in ("bad_header", "broken") else record


class Observer:
    """Every handler of a schedule, where its letters go, and the judge of both."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.source = FaultySource(work)
        self.bench: Bench
        self.scripts = {each: list(script) for each, script in work.scripts.items()}
        self.writes = {offset: list(answers) for offset, answers in work.letters.items()}
        self.keys = {record.offset: record.key for record in work.records}
        self.singles = [index for index, kind in enumerate(work.kinds) if kind in SINGLE]
        self.running: list[tuple[int, int]] = []
        """Offset and route of each call under way that is no batch's."""
        self.batches: Counter[int] = Counter()
        self.paused: set[tuple[int, int]] = set()
        self.resolved: dict[tuple[int, int], str] = {}
        """Outcomes of this epoch."""
        self.ever: set[tuple[int, int]] = set()
        self.errors: Counter[tuple[int, int]] = Counter()
        self.raised: Counter[tuple[str, str]] = Counter()
        self.handled: Counter[str] = Counter()
        self.buried: Counter[str] = Counter()
        self.last: dict[int, int] = defaultdict(lambda: -1)
        self.begun: set[int] = set()
        self.begun_routes: set[tuple[int, int]] = set()
        self.calls = 0
        self.stopped = False
        self.wrong: list[str] = []
        for number in self.keys:
            self._note_done(number)

    # -- what is made of it --------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        return [self._route(index, kind) for index, kind in enumerate(self.work.kinds)]

    def _route(self, index: int, kind: str) -> Route:
        name = f"r{index}"
        if kind in BATCHED:
            made = a_batch_route(self._batch_handler(index, kind), name, max_records=self.work.size, max_seconds=0.05)
        else:
            made = a_route(self._single_handler(index, kind), name)
        return msgspec.structs.replace(made, matches=lambda event: self.work.wants[int(event), index])

    def _single_handler(self, route: int, kind: str) -> Callable[..., Any]:
        def plain(event: bytes, record: Record) -> None:
            assert record.value == event
            self.begin(int(event), route)
            self.end(int(event), route)

        async def at_once(event: bytes) -> None:
            self.begin(int(event), route)
            self.end(int(event), route)

        async def later(event: bytes) -> None:
            self.begin(int(event), route)
            await self._yielding(int(event), route)

        def wrapped(event: bytes) -> Any:
            self.begin(int(event), route)
            if self.work.yields[int(event)]:
                return self._yielding(int(event), route)
            return self.end(int(event), route)

        made: dict[str, Callable[..., Any]] = {"plain": plain, "at_once": at_once, "later": later, "wrapped": wrapped}
        return made[kind]

    async def _yielding(self, number: int, route: int) -> None:
        try:
            for _ in range(self.work.yields[number]):
                await asyncio.sleep(0)
        except BaseException:
            self.running.remove((number, route))
            raise
        self.end(number, route)

    def _batch_handler(self, route: int, kind: str) -> Callable[..., Any]:
        def batch(events: list[bytes]) -> None:
            self.begin_batch(events, route)
            self.end_batch(events, route)

        def batch_records(events: list[bytes], records: list[Record]) -> None:
            assert [record.value for record in records] == events
            batch(events)

        async def batch_later(events: list[bytes]) -> None:
            self.begin_batch(events, route)
            try:
                for _ in range(self.work.yields[int(events[0])]):
                    await asyncio.sleep(0)
            except BaseException:
                self.batches[route] -= 1
                raise
            self.end_batch(events, route)

        made: dict[str, Callable[..., Any]] = {
            "batch": batch,
            "batch_records": batch_records,
            "batch_later": batch_later,
        }
        return made[kind]

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _called(self, numbers: list[int], route: int) -> None:
        self.calls += 1
        partition = self.bench.engine.partitions.get(KEY)
        if self.stopped or partition is None:
            self.wrong.append(f"{numbers} called outside of an epoch")
        elif self.work.kinds[route] == "batch_later":
            pass  # a coroutine may be made before a pause and take its first step in it
        elif partition.pausing and self.paused and not partition.closing:
            goes_on = numbers[0] in self.begun and (numbers[0], route) not in self.begun_routes  # with its next route
            if not goes_on and not any((number, route) in self.paused for number in numbers):
                self.wrong.append(f"{numbers} begun in a pause of {self.paused}")
        self.begun.update(numbers)
        self.begun_routes.update((number, route) for number in numbers)
        for number in numbers:
            if not self.work.wants[number, route] or number in self.work.bad:
                self.wrong.append(f"{number} is not for r{route}")
            if (number, route) in self.resolved:
                self.wrong.append(f"{number} called after it was {self.resolved[number, route]}")

    def begin(self, number: int, route: int) -> None:
        self._called([number], route)
        self.running.append((number, route))
        ordering = self.work.delivery["ordering"]
        if len(self.running) > (1 if ordering == "partition" else self.work.delivery["concurrency"]):
            self.wrong.append(f"{self.running} run at once")
        for other, key in self.keys.items():
            same = ordering == "partition" or (ordering == "key" and key == self.keys[number])
            if same and self.source.from_offset <= other < number and not self._is_resolved(other):
                self.wrong.append(f"{number} begun before {other} had its outcomes")
        for earlier in self.singles:
            if earlier < route and self.work.wants[number, earlier] and (number, earlier) not in self.resolved:
                self.wrong.append(f"{number} came to r{route} before r{earlier}")

    def end(self, number: int, route: int) -> None:
        self.running.remove((number, route))
        self._answer(number, route, self._next(number, route))
        self._resolve(number, route, "handled")

    def begin_batch(self, events: list[bytes], route: int) -> None:
        numbers = [int(event) for event in events]
        self._called(numbers, route)
        self.batches[route] += 1
        if self.batches[route] > 1:
            self.wrong.append(f"r{route} called twice at once")
        if numbers != sorted(set(numbers)) or len(numbers) > self.work.size:
            self.wrong.append(f"a batch of {numbers}")
        for other in self.keys:
            if self.source.from_offset <= other < numbers[0] and not self._is_resolved(other, [route]):
                self.wrong.append(f"{numbers} begun before {other} had its outcome")

    def end_batch(self, events: list[bytes], route: int) -> None:
        numbers = [int(event) for event in events]
        self.batches[route] -= 1
        events.clear()
        for index, number in enumerate(numbers):
            answer = self._next(number, route)
            if answer == "reject":
                self.raised[f"r{route}", "reject"] += 1
                self.paused -= {(each, route) for each in numbers}
                raise Reject(str(number), indexes=[index, 99])
            self._answer(number, route, answer, numbers)
        for number in numbers:
            self._resolve(number, route, "handled")

    def _next(self, number: int, route: int) -> str:
        script = self.scripts[number, route]
        return script.pop(0) if len(script) > 1 else script[0]

    def _answer(self, number: int, route: int, answer: str, with_it: list[int] | None = None) -> None:
        """Raise what the script says; ``with_it`` are the records of its batch."""
        together = {(each, route) for each in with_it or [number]}
        self.paused -= together
        if not answer:
            return
        kind = {"connection": "pause", "reject_all": "reject"}.get(answer, answer)
        self.raised[f"r{route}", kind] += 1
        if kind == "pause":
            self.paused |= together
        if kind == "error":
            self.errors.update(together)
        raise {
            "error": ValueError("private"),
            "retry": Retry("private", after=0),
            "pause": Pause("private", after=0.02),
            "connection": ConnectionResetError("private"),
        }.get(answer) or Reject("private")

    # -- letters -------------------------------------------------------------------------------------------------------

    async def write(self, key: TopicPartition, raw: Any, cause: Cause) -> None:
        assert key == KEY
        assert "private" not in f"{cause}"
        assert raw.value == {record.offset: record.value for record in self.work.records}[raw.offset]
        answers = self.writes[raw.offset]
        answer = answers.pop(0) if answers else ""
        for _ in range({"slow": 10, "hang": 60}.get(answer, 0)):
            await asyncio.sleep(0)
        if answer == "delayed":
            raise LetterDelayedError("away")
        if answer == "refused":
            raise LetterRefusedError("no such topic")
        self.buried[cause.route] += 1
        if cause.route == NO_ROUTE:
            if cause.reason != {"broken": "bad_header"}.get(self.work.bad[raw.offset], self.work.bad[raw.offset]):
                self.wrong.append(f"{raw.offset} is a letter for {cause.reason}")
            self._resolve(raw.offset, -1, "dead_lettered")
            return
        route = int(cause.route[1:])
        if self.work.kinds[route] in SINGLE and cause.attempts != min(ATTEMPTS, self.errors[raw.offset, route] + 1):
            self.wrong.append(f"{raw.offset} is a letter after {cause.attempts} attempts")
        self._resolve(raw.offset, route, "dead_lettered")

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def _needed(self, number: int) -> list[int]:
        if number in self.work.bad:
            return [-1]
        if self.is_tombstone(number):
            return []
        return [route for route in range(len(self.work.kinds)) if self.work.wants[number, route]]

    def is_tombstone(self, number: int) -> bool:
        return any(record.offset == number and record.value is None for record in self.work.records)

    def _is_resolved(self, number: int, routes: list[int] | None = None) -> bool:
        """Whether a record has its outcomes on routes without batches, or on some."""
        of_interest = self.singles if routes is None else routes
        needed = [route for route in self._needed(number) if route in of_interest or (route == -1 and routes is None)]
        return all((number, route) in self.resolved for route in needed)

    def _resolve(self, number: int, route: int, outcome: str) -> None:
        if (number, route) in self.resolved:
            self.wrong.append(f"{number} {outcome} after it was {self.resolved[number, route]}")
        self.resolved[number, route] = outcome
        self.ever.add((number, route))
        if outcome == "handled":
            self.handled[f"r{route}"] += 1
        self._note_done(number)

    def _note_done(self, number: int) -> None:
        if all((number, route) in self.ever for route in self._needed(number)):
            self.source.done.add(number)

    def new_epoch(self) -> None:
        self.source.rewind()
        self.source.from_offset = self.source.position
        self.resolved.clear()
        self.errors.clear()
        self.paused.clear()
        self.begun.clear()
        self.begun_routes.clear()
        self.stopped = False

    # -- the end -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        counters, names = self.bench.counters, [f"r{index}" for index in range(len(self.work.kinds))]
        assert not self.wrong, self.wrong[:3]
        assert self.bench.failures == []
        assert self.source.ahead == []
        check_commits_never_fall(self.source)
        assert {name: counters.outcomes[name, Outcome.HANDLED] for name in names} == {n: self.handled[n] for n in names}
        assert {each: n for each, n in counters.handler_errors.items() if n} == dict(self.raised)
        for name in [*names, NO_ROUTE]:
            assert counters.outcomes[name, Outcome.DEAD_LETTERED] == self.buried[name]

    def check_at_rest(self) -> None:
        partition, lanes = self.bench.engine.partitions[KEY], self.bench.engine._lanes[KEY]
        assert (partition.holds, partition.pausing, partition.blocked, partition.in_flight) == (set(), 0, 0, (0, 0))
        assert (lanes.gate.runners, lanes._busy or {}, list(lanes.gate.queue)) == (1, {}, [])
        if not self.work.revokes:
            skipped = [each for each in self.keys if not self._needed(each)]
            assert self.bench.counters.skipped == len(skipped)
            assert self.bench.counters.no_route.dead_lettered == len(self.work.bad)
            assert sum(self.bench.counters.decode_errors.values()) == len(self.work.bad)


async def until(holds: Callable[[], Any], rounds: int = ROUNDS) -> None:
    for _ in range(rounds):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def decode(work: Work) -> Callable[[bytes], bytes]:
    def decode_one(value: bytes) -> bytes:
        if work.bad.get(int(value)) == "undecodable":
            raise ValueError
        return bytes(bytearray(value))

    return decode_one


def run(scenario: Callable[[], Any], *, eager: bool) -> None:
    """Run on a ticking clock; the loop may be given back after each record, and a letter is soon a slow one."""
    with ExitStack() as stack, asyncio.Runner(loop_factory=TickingLoop) as runner:
        stack.enter_context(patch("consumer.delivery.failure.SLOW_LETTER_SECONDS", 0.02))
        if eager:
            stack.enter_context(patch("consumer.delivery.turns.SLICE_SECONDS", -1.0))
            for module in ("lanes", "fast_loop"):
                stack.enter_context(patch(f"consumer.delivery.{module}.LOOK_EVERY", 1))
        runner.run(scenario())


def an_engine_for(observer: Observer, work: Work) -> Any:
    return an_engine_on(
        observer.source,
        *observer.routes(),
        decoder=Decoder(decode(work), decode(work), 1000),
        retry=RetrySettings(attempts=ATTEMPTS, initial_seconds=0.01, maximum_seconds=0.05),
        letters=observer,
        dead_letter=NO_FUSE,
        **work.delivery,
    )


@given(schedules())
@settings(max_examples=250, deadline=None)
def test_every_record_comes_to_one_outcome_a_route(work: Work) -> None:
    """Failing, held, rejected, unreadable and revoked in the middle: one outcome an epoch, in order, none passed."""

    async def scenario() -> None:
        observer = Observer(work)
        async with an_engine_for(observer, work) as bench:
            observer.bench = bench
            bench.engine.assign([KEY])
            for after in work.revokes:
                await rounds(after)
                await bench.engine.revoke(lost=False)
                assert (observer.running, +observer.batches) == ([], {})
                observer.stopped = True
                await rounds(30)
                observer.new_epoch()
                bench.engine.assign([KEY])
            await until(lambda: observer.source.committed == observer.source.end or observer.wrong or bench.failures)
            await rounds(5)
            observer.check()
            if bench.engine.partitions[KEY].position is not None:  # else all was committed before the last revoke
                observer.check_at_rest()

    run(scenario, eager=work.eager)


@given(schedules(refused=True))
@settings(max_examples=150, deadline=None)
def test_a_refused_letter_is_never_passed(work: Work) -> None:
    """Where a letter is refused the partition halts: what was started ends, nothing is begun, nothing is passed."""

    async def scenario() -> None:
        observer = Observer(work)
        async with an_engine_for(observer, work) as bench:
            observer.bench = bench
            bench.engine.assign([KEY])
            partition = bench.engine.partitions[KEY]
            await until(lambda: observer.source.committed == observer.source.end or partition.halt or observer.wrong)
            if partition.halt is not None:
                await until(lambda: not bench.engine._lanes[KEY].tasks)
                calls = observer.calls
                await rounds(100)
                assert observer.calls == calls
                assert partition.halt.reason is HaltReason.NO_DEAD_LETTER
                assert partition.done <= partition.halt.offset
                assert (partition.holds, partition.pausing) == (set(), 0)
            assert (observer.running, +observer.batches) == ([], {})
            observer.check()

    run(scenario, eager=work.eager)
