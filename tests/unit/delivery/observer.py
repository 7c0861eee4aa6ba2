"""The handlers and the dead-letter writer of a random schedule; they check every call and letter."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from consumer import Pause, Record, Reject, Retry
from consumer.dead_letters.cause import NO_ROUTE, Cause
from consumer.errors import LetterDelayedError, LetterRefusedError
from consumer.outcome import Outcome
from consumer.record import TopicPartition
from consumer.routes.route import Route
from consumer.settings.sections import DeadLetterSettings
from tests.unit.delivery.batches import a_batch_route
from tests.unit.delivery.engines import Bench, a_route
from tests.unit.delivery.log_source import check_commits_never_fall
from tests.unit.delivery.schedules import BATCHED, SINGLE, FaultySource, Work
from tests.unit.delivery.source import KEY

ATTEMPTS = 3

NO_FUSE = DeadLetterSettings(limit_ratio=2.0)


class Observer:
    """Every handler of a schedule and its dead-letter writer; notes each broken rule in ``wrong``."""

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
        self.together: dict[int, set[int]] = defaultdict(set)
        """The records of each route's last batch."""
        self.paused: set[tuple[int, int]] = set()
        self.resolved: dict[tuple[int, int], str] = {}
        """Outcomes of this epoch."""
        self.given_up: set[tuple[int, int]] = set()
        """Calls that are not repeated: a letter is written beside what comes after."""
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

    def routes(self) -> list[Route]:
        return [self._route(index, kind) for index, kind in enumerate(self.work.kinds)]

    def _route(self, index: int, kind: str) -> Route:
        name = f"r{index}"
        if kind in BATCHED:
            made = a_batch_route(self._batch_handler(index, kind), name, max_records=self.work.size, max_seconds=0.05)
        else:
            made = a_route(self._single_handler(index, kind), name)
        return msgspec.structs.replace(made, matches=lambda event, _raw: self.work.wants[int(event), index])

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

    def _called(self, numbers: list[int], route: int) -> None:
        self.calls += 1
        partition = self.bench.engine.partitions.get(KEY)
        if self.stopped or partition is None:
            self.wrong.append(f"{numbers} called outside of an epoch")
        elif self.work.kinds[route] == "batch_later":
            pass  # a coroutine may be made before a pause and take its first step in it
        elif partition.pauses and self.paused and not partition.ended:
            own = {
                (number, route) for number in {*numbers, *self.together[route]}
            }  # a pause is that of its whole batch
            if not own & self.paused:
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
            if earlier < route and self.work.wants[number, earlier] and not self._is_resolved(number, [earlier]):
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
        if numbers[0] not in self.together[route]:
            self.together[route] = set(numbers)
        for other in set(self.keys) - self.together[route]:  # a failed batch's records are called singly, in rounds
            if self.source.from_offset <= other < numbers[0] and not self._is_resolved(other, [route]):
                self.wrong.append(f"{numbers} begun before {other} had its outcome")

    def end_batch(self, events: list[bytes], route: int) -> None:
        numbers = [int(event) for event in events]
        self.batches[route] -= 1
        events.clear()
        for index, number in enumerate(numbers):
            answer = self._next(number, route)
            if answer == "reject":
                self.given_up.add((number, route))
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
        """Raise what the script says; ``with_it`` holds the records of the batch."""
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
        calls = 2 * ATTEMPTS if self.work.kinds[route] in BATCHED else ATTEMPTS  # a batch, then its records singly
        self.given_up |= {each for each in together if kind == "reject" or self.errors[each] >= calls}
        raise {
            "error": ValueError("private"),
            "retry": Retry("private", after=0),
            "pause": Pause("private", after=0.02),
            "connection": ConnectionResetError("private"),
        }.get(answer) or Reject("private")

    async def look(self) -> None:
        """Letters can be written."""

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
        attempts = min(ATTEMPTS, self.errors[raw.offset, route] + 1)
        if self.work.kinds[route] not in BATCHED and cause.attempts != attempts:
            self.wrong.append(f"{raw.offset} is a letter after {cause.attempts} attempts")
        self._resolve(raw.offset, route, "dead_lettered")

    def _needed(self, number: int) -> list[int]:
        if number in self.work.bad:
            return [-1]
        if self.is_tombstone(number):
            return []
        return [route for route in range(len(self.work.kinds)) if self.work.wants[number, route]]

    def is_tombstone(self, number: int) -> bool:
        return any(record.offset == number and record.value is None for record in self.work.records)

    def _is_resolved(self, number: int, routes: list[int] | None = None) -> bool:
        """Tell whether a record has its outcomes on all routes without batches, or on the given routes."""
        of_interest = self.singles if routes is None else routes
        needed = [route for route in self._needed(number) if route in of_interest]
        return all((number, route) in self.resolved or (number, route) in self.given_up for route in needed)

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
        self.given_up.clear()
        self.together.clear()
        self.errors.clear()
        self.paused.clear()
        self.begun.clear()
        self.begun_routes.clear()
        self.stopped = False

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
        partition, lanes = self.bench.engine.partitions[KEY], self.bench.engine._workers[KEY]
        assert (partition.holds, partition.pauses, partition.in_flight) == (set(), set(), (0, 0))
        assert (lanes._alive, lanes.busy, lanes._parking.ready, lanes._parking._heap) == (1, {}, [], [])
        if not self.work.revokes:
            skipped = [each for each in self.keys if not self._needed(each)]
            assert self.bench.counters.skipped == len(skipped)
            assert self.bench.counters.no_route.dead_lettered == len(self.work.bad)
            assert sum(self.bench.counters.decode_errors.values()) == len(self.work.bad)
