"""The app under test: the daemon's engine on records that a test gives, with a clock that a test moves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from consumer.delivery.engine import Engine
from consumer.delivery.pipeline import Pipelines
from consumer.errors import StuckCallError
from consumer.observe.counters import Counters
from consumer.partition.hold import Halt
from consumer.process.lifecycle import Lifecycle
from consumer.record import NewRecord, Position, Record, TopicPartition
from consumer.routes.route import matching
from consumer.testing.calls import Call, Calls, NotEndedError
from consumer.testing.clock import Clock
from consumer.testing.source import DeadLetter, GivenRecord, GivenSource
from consumer.testing.values import GivenHeaders, Values, bytes_of, headers_of

SOON = 1e-6
"""Seconds by which sums of floats may miss a timer."""
COMMIT_SECONDS = 3600.0
AGAIN_SECONDS = 0.01
"""Limit for calls of an app that stops, after one has been waited for in vain."""


class AppParts(NamedTuple):
    """What an app is made of; made by ``consumer()``."""

    lifecycle: Lifecycle
    counters: Counters
    source: GivenSource
    engine: Engine
    values: Values
    expected: Pipelines
    """The engine's pipelines once more: they tell which outcomes a record waits for."""
    calls: Calls
    clock: Clock


class App:
    """A consumer without Kafka; made and entered by ``consumer()``, left at the end of its block.

    Retries have no jitter, and time stands still but for ``advance``.
    """

    def __init__(self, parts: AppParts, limit_seconds: float) -> None:
        self._parts = parts
        self._limit_seconds = limit_seconds
        self._loops: list[asyncio.Task[None]] = []
        self._halts: dict[TopicPartition, Halt] = {}
        self._failed = False

    @property
    def calls(self) -> list[Call]:
        """Every call of a handler, in order."""
        return self._parts.calls.made

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter, in the order in which they were written."""
        return self._parts.source.dead_letters

    @property
    def written(self) -> list[NewRecord]:
        """Every record that a handler wrote to another topic, in order."""
        return self._parts.source.written

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """The route and the outcome of each record, in the order in which they were given.

        ``handled``, ``skipped`` or ``dead_lettered``; without an outcome yet ``waiting`` (for a retry, its batch, or
        records before it) or ``under_way`` (its call has begun). A record has an entry for each of its routes; one
        without a route has an entry of the route ``none``.
        """
        return [entry for given in self._parts.calls.given.values() for entry in given.outcomes.items()]

    @property
    def committed(self) -> dict[TopicPartition, int]:
        """The next offset to read that is committed, by topic and partition."""
        return dict(self._parts.source.committed)

    @property
    def halts(self) -> dict[TopicPartition, Halt]:
        """The partitions that halted, and why."""
        return dict(self._halts)

    async def give(
        self,
        *events: Any,
        topic: str | None = None,
        partition: int = 0,
        key: bytes | str | None = None,
        headers: GivenHeaders = (),
        timestamp_ms: int | None = None,
        wait: bool = True,
    ) -> None:
        """Deliver records, and return when nothing more can happen before time passes.

        ``bytes`` are a value as it is, and None is a tombstone. A Record is delivered whole; its offset is raised if
        the partition has had it. Any other event is encoded in its topic's format. ``topic`` is needed if there are
        several.

        A call that waits for something else than time, such as a thread or a socket, is waited for; NotEndedError names
        one that does not end. With ``wait=False`` such calls stay under way.
        """
        if self._parts.lifecycle.draining:
            raise RuntimeError("the app has stopped; give events inside of its block")
        values, own = self._parts.values, headers_of(headers)
        stamp = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms

        def record(event: Any) -> Record:
            name = values.topic(topic)
            return Record(name, partition, 0, stamp, bytes_of(key), values.encoded(event, name), own)

        records = [each if isinstance(each, Record) else record(each) for each in events]
        self._deliver(records)
        await self._settle(wait=wait)

    def _deliver(self, records: Sequence[Record]) -> None:
        parts = self._parts
        by_partition: dict[TopicPartition, list[GivenRecord]] = {}
        for each in records:
            key = TopicPartition(parts.values.topic(each.topic), each.partition)
            given = GivenRecord(
                *key, parts.source.next_offset(key, each.offset), each.timestamp_ms, each.key, each.value, each.headers
            )
            given.outcomes = dict.fromkeys(self._expected(given), "waiting") or {"none": "waiting"}
            parts.calls.given[Position(*key, given.offset)] = given
            by_partition.setdefault(key, []).append(given)
        for key, given_there in by_partition.items():
            if key not in parts.engine.partitions:
                parts.counters.know([key.topic])
                parts.engine.assign([key])
            parts.source.give(given_there)

    def _expected(self, given: GivenRecord) -> list[str]:
        """Return the routes that a record will reach; none if it will be skipped, or cannot be decoded."""
        pipeline = self._parts.expected.of(given.topic)
        try:
            event = None if given.value is None else pipeline.decoder.decode(given.value)
            return [route.name for route in matching(pipeline.routes, event, given)]
        except Exception:
            return []

    async def advance(self, seconds: float, *, wait: bool = True) -> None:
        """Let time pass: retries, pauses, batches, time limits and commits that come due in it happen, in order.

        ``wait`` as in ``give``.
        """
        clock = self._parts.clock
        until = clock.time() + seconds
        await self._settle(wait=wait)
        while (due := clock.next_due) is not None and due <= until + SOON:
            clock.move(due)
            await self._settle(wait=wait)
        clock.move(until)

    async def commit(self) -> None:
        """Flush every handler and commit now, before the interval has passed."""
        parts = self._parts
        until = time.monotonic() + COMMIT_SECONDS
        work = parts.engine.committer.commit(parts.engine.partitions.values(), until, COMMIT_SECONDS, all_owned=True)
        parts.lifecycle.tasks.create_task(work)
        await self._settle(wait=True)

    async def start(self) -> None:
        """Start the loops of the engine."""
        tasks = await self._parts.lifecycle.tasks.__aenter__()
        engine = self._parts.engine
        self._loops = [tasks.create_task(engine.poll_forever()), tasks.create_task(engine.commit_forever())]

    async def stop(self) -> None:
        """Stop as the daemon does: drain, flush, commit. Calls that do not end in the drain's time are cancelled."""
        parts = self._parts
        parts.lifecycle.draining = True
        stopping = parts.lifecycle.tasks.create_task(parts.engine.stop())
        due: float | None = 0.0
        while not stopping.done() and due is not None:
            parts.clock.move(due)
            try:
                await self._settle(wait=True)
            except NotEndedError:
                self._limit_seconds = min(self._limit_seconds, AGAIN_SECONDS)
            due = parts.clock.next_due
        for loop in self._loops:
            loop.cancel()
        await parts.lifecycle.tasks.__aexit__(None, None, None)
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise what would have ended the daemon, once; a call that did not end shows in the outcomes."""
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(StuckCallError):
            self._parts.lifecycle.raise_failure()
        self._failed = False

    async def _settle(self, *, wait: bool) -> None:
        """Return when nothing can happen before time passes; raise what would have ended the daemon."""
        calls, clock = self._parts.calls, self._parts.clock
        until, stopping = time.monotonic() + self._limit_seconds, self._parts.lifecycle.draining
        with clock.stopped():
            await clock.until_idle(until)
            while waited_for := [
                each for each in calls.under_way if not (stopping and each.left) and not clock.sleeps(each.task)
            ]:
                if wait and time.monotonic() < until:
                    await self._until_changed(until)
                    await clock.until_idle(until)
                    continue
                for each in waited_for:
                    each.left = True
                if not wait:
                    break
                raise NotEndedError(
                    f"{waited_for[0].what} has not ended after {self._limit_seconds:g} s; with wait=False it stays"
                    " under way, and limit_seconds sets the limit"
                )
        self._note()
        if not self._parts.lifecycle.draining:
            self._raise_failure()

    async def _until_changed(self, until: float) -> None:
        """Wait until a call or a flush ends, or until a real time; the clock of the loop stands still."""
        changed, loop = self._parts.calls.changed, asyncio.get_running_loop()
        changed.clear()
        timer = threading.Timer(until - time.monotonic(), loop.call_soon_threadsafe, [changed.set])
        timer.start()
        try:
            await changed.wait()
        finally:
            timer.cancel()

    def _note(self) -> None:
        """Note halts, and records that the engine has passed without a call and without a letter."""
        partitions = self._parts.engine.partitions
        self._halts |= {key: each.halt for key, each in partitions.items() if each.halt is not None}
        for place, given in self._parts.calls.given.items():
            if given.outcomes.get("none") == "waiting":
                partition = partitions.get(TopicPartition(place.topic, place.partition))
                if partition is not None and (partition.position or 0) > place.offset:
                    given.outcomes["none"] = "skipped"
