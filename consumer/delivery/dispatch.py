"""Dispatch: from a raw record to the calls of its routes. Nothing here waits, and nothing knows of workers.

``pull`` is the flat loop: it decodes, matches, fills batches and calls handlers for any number of routes, as long as
nothing waits. A call that waits comes out of it as an ``Ongoing`` record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from consumer.delivery.calls import DONE, Call, Driver, coroutine_of, make_call
from consumer.delivery.collecting import Collecting
from consumer.delivery.failure import FailedCall
from consumer.delivery.pipeline import Pipeline
from consumer.delivery.turns import Turns
from consumer.errors import DecodeError, HandlerFailedError, place_of
from consumer.observe.counters import Counters, RouteCounters
from consumer.partition.hold import Hold
from consumer.partition.state import Partition
from consumer.record import RawRecord, TopicPartition
from consumer.routes.match import Predicate
from consumer.routes.route import Route

LOOK_EVERY = 16
"""Records between two reads of the clock, unless they took longer than ``SLOW_SECONDS``."""
SLOW_SECONDS = 0.001


class Step(NamedTuple):
    """One route of one partition."""

    name: str
    matches: Predicate | None
    call: Call
    counts: RouteCounters
    tombstones: bool
    batch: Collecting | None


class Ongoing(msgspec.Struct, eq=False):
    """A record on its way through its routes, after a call of its that waits or failed."""

    raw: RawRecord
    event: Any
    steps: list[Step]
    """Its routes without batches, in file order."""
    at: int = 0
    """Which of them is being called."""
    driver: Driver | None = None
    """Awaits the rest of the call under way; None when there is none."""
    yielded: Any = None
    """What that call yielded to the event loop."""
    began: float = 0.0
    size: int = 0
    """Bytes that it counts for while it is held."""
    failure: HandlerFailedError | None = None
    """How the last call failed."""
    failed_call: FailedCall | None = None

    @property
    def hold(self) -> Hold | None:
        """Its own pause, if its failed call made one."""
        return self.failed_call.hold if self.failed_call is not None else None


class UnreadableError(Exception):
    """The next record of a chunk cannot be read; ``__cause__`` says why."""


class Dispatch:
    """Owned by the workers of one partition and as long-lived."""

    def __init__(
        self,
        pipeline: Pipeline,
        key: TopicPartition,
        counters: Counters,
        batches: Mapping[str, Collecting],
        undecodable: Callable[[RawRecord, DecodeError], bool],
        unmatched: Callable[[int], None],
    ) -> None:
        """``undecodable`` takes a record that is not an event, and returns False when the partition halted instead."""
        self.counters = counters
        self._key = key
        self._decoder = pipeline.decoder
        self._choose = pipeline.choose
        self._undecodable = undecodable
        self._unmatched = unmatched
        self._steps = {route.name: _step(route, key, counters, batches.get(route.name)) for route in pipeline.routes}
        self._every = list(self._steps.values())
        self._only = self._steps[pipeline.only.name] if pipeline.only is not None else None
        self._collects = bool(batches)
        self._single = [self._only] if self._only is not None else []
        route = pipeline.only
        self._is_async = route is not None and route.handler.is_async
        self._bare = route.handler.call if route is not None and not route.handler.wants_record else None
        self._driver = Driver()
        self._free: list[Driver] = []
        """Drivers whose coroutine has ended; there are never more than calls at once."""
        self._look_every = 1
        self.unaged = 0
        """Records that were pulled and whose age is not noted yet."""
        self.last: Any = None
        """The last of them."""
        self.seen_at = 0.0
        """Seconds since 1970 at which that was."""

    def free(self, driver: Driver) -> None:
        """Take back the driver of a call that has returned."""
        self._free.append(driver)

    def steps_of(self, raw: RawRecord) -> tuple[Any, list[Step]]:
        """Decode a record and match its routes; raise DecodeError. A record that nobody chose is not even decoded."""
        choice = self._choose(self._key, raw) if self._choose is not None else None
        if self._choose is not None and choice is None:
            return None, []
        value = raw.value
        event = None if value is None else self._decoder.decode(value)
        if choice is not None:
            return event, [self._steps[route.name] for route in choice(event)]
        return event, self._matching(event)

    def _matching(self, event: Any) -> list[Step]:
        if event is None:
            return [step for step in self._every if step.tombstones]
        try:
            return [step for step in self._every if step.matches is None or step.matches(event)]
        except Exception as error:
            raise _as_decode_error(error) from None

    def take(self, raw: RawRecord) -> tuple[Any, list[Step]]:
        """Decode a record, fill its batches, and return its event and the routes to call; raise DecodeError."""
        event, steps = self.steps_of(raw)
        if not steps:
            self.counters.skipped += 1
            if raw.value is not None:
                self._unmatched(raw.offset)
        calls = []
        for step in steps:
            if step.batch is not None:
                step.batch.add(event, raw)
            else:
                calls.append(step)
        return event, calls

    def run(self, raw: RawRecord, event: Any, steps: list[Step], at: int = 0) -> Ongoing | None:
        """Call a record's routes from ``at`` on; return it when a call waits or failed, None when all are handled."""
        monotonic = time.monotonic
        now = monotonic()
        for index in range(at, len(steps)):
            (name, _, call, counts, _, _), began = steps[index], now
            try:
                result = call(event, raw)
                if result is not None and (coroutine := coroutine_of(result, name)) is not None:
                    driver = self._driver
                    yielded = driver.begin(coroutine)
                    if yielded is not DONE:
                        self._driver = self._free.pop() if self._free else Driver()
                        counts.inline_seconds += monotonic() - began
                        return Ongoing(raw, event, steps, index, driver, yielded, began)
            except BaseException as error:
                self._driver = Driver()
                counts.inline_seconds += monotonic() - began
                return Ongoing(raw, event, steps, index, failure=HandlerFailedError.of(name, error))
            now = monotonic()
            counts.inline_seconds += now - began
            counts.handled += 1
        return None

    def pull(  # noqa: C901, PLR0912, PLR0915 - the flat loop: one function on purpose, measured
        self,
        records: Iterator[RawRecord],
        partition: Partition,
        turns: Turns,
        busy: Mapping[bytes | None, Any],
        queue_behind: Callable[[RawRecord, Any, list[Step]], None],
        room: Callable[[], bool],
    ) -> Generator[Ongoing | None, None, None]:
        """Pull records in place and bring each to its outcome, as long as nothing waits.

        Yields the record whose call waits or failed, and None at the end of a turn, without room, or with a full batch;
        the caller sees to that before it resumes. Before it yields, every record below the partition's position is
        done, held or collected, but for the one yielded. Records of keys in ``busy`` go to ``queue_behind``; ``room``
        is asked after each record that takes some. Raises UnreadableError.
        """
        monotonic, only, every, counters = time.monotonic, self._only, self._every, self.counters
        reader, reread, max_bytes = self._decoder.reader, self._decoder.reread, self._decoder.max_record_bytes
        consumed, topic = counters.records_consumed, partition.key.topic
        collects, chooses = self._collects, self._choose is not None
        first, begin = reader.first, self._driver.begin
        batch = counts = None
        if only is not None:
            name, matches, call, counts, _, batch = only
            handle = self._bare
            is_async = self._is_async
        count = handled = skipped = 0
        look_at, looked = self._look_every, monotonic()
        began = looked
        raw: Any = None
        ongoing: Ongoing | None = None
        done = reading = True
        stop = settled = False
        if batch is not None:
            events, size, max_records, max_batch_bytes = batch.events, batch.size, batch.max_records, batch.max_bytes
        try:
            for raw in records:
                count += 1
                reading = done = False
                try:
                    value = None if chooses else raw.value
                    if value is None:
                        event, steps = self.take(raw)
                    else:
                        try:
                            event = first(value) if len(value) <= max_bytes else reread(value)
                        except Exception:
                            event = reread(value)
                            first = reader.first  # the reader may have found a decoder that fits better
                        if only is None:
                            steps = [step for step in every if step[1] is None or step[1](event)]
                            if not steps:
                                self._unmatched(raw.offset)
                                skipped += 1
                            elif collects:
                                for step in steps:
                                    if step[5] is not None:
                                        step[5].add(event, raw)
                                steps = [step for step in steps if step[5] is None]
                        elif matches is not None and not matches(event):
                            self._unmatched(raw.offset)
                            skipped += 1
                            steps = []
                        else:
                            steps = self._single
                except Exception as error:
                    consumed[topic] += count  # the fuse looks at it
                    self.unaged, look_at, count = self.unaged + count, look_at - count, 0
                    if batch is not None:
                        batch.size = size
                    done = self._undecodable(raw, _as_decode_error(error))  # a halt calls what was collected
                    if batch is not None:
                        events, size = batch.events, batch.size
                    stop = not done or not room()
                else:
                    if not steps:
                        done = True
                        stop = collects and only is None and not room()
                    elif batch is not None:
                        if not events:
                            batch.begin(raw.offset)
                        events.append(event)
                        if batch.keeps_raws:
                            batch.raws.append(raw)
                        size += len(value)  # type: ignore[arg-type]  # batch routes take no tombstones
                        done = True
                        stop = len(events) >= max_records or size >= max_batch_bytes
                    elif busy and raw.key in busy:
                        queue_behind(raw, event, steps)
                        done = True
                        stop = not room()
                    elif only is None:
                        ongoing = self.run(raw, event, steps)
                        done = ongoing is None
                        stop = not done or (collects and not room())
                    else:
                        try:
                            result = handle(event) if handle is not None else call(event, raw)
                            if is_async:
                                yielded = begin(result)
                            elif result is not None and (coroutine := coroutine_of(result, name)) is not None:
                                yielded = begin(coroutine)
                            else:
                                yielded = DONE
                        except BaseException as error:
                            ongoing = Ongoing(raw, event, steps, failure=HandlerFailedError.of(name, error))
                            self._driver = Driver()
                            stop = True
                        else:
                            if yielded is DONE:
                                handled += 1
                                done = True
                            else:
                                ongoing = Ongoing(raw, event, steps, 0, self._driver, yielded, monotonic())
                                self._driver = self._free.pop() if self._free else Driver()
                                stop = True
                reading = True
                if count < look_at and not stop:
                    continue
                now = monotonic()
                if not stop:
                    self._look_every = LOOK_EVERY if now - looked < SLOW_SECONDS else 1
                    if now < turns.end:
                        look_at, looked = count + self._look_every, now
                        continue
                self._settle_turn(partition, raw, count, handled, skipped, done=done)
                if batch is not None:
                    batch.size = size
                elif counts is not None:
                    counts.inline_seconds += now - began
                count = handled = skipped = 0
                settled = True
                yield ongoing
                ongoing, stop, done, settled = None, False, True, False
                first, began = reader.first, monotonic()
                look_at, looked = self._look_every, began
                begin = self._driver.begin
                if batch is not None:
                    events, size = batch.events, batch.size
        except Exception as error:
            if not reading:
                raise
            raise UnreadableError from error
        finally:
            if not settled:
                self._settle_turn(partition, raw, count, handled, skipped, done=done)
                if batch is not None:
                    batch.size = size
                elif counts is not None:
                    counts.inline_seconds += monotonic() - began

    def _settle_turn(
        self, partition: Partition, raw: RawRecord | None, count: int, handled: int, skipped: int, *, done: bool
    ) -> None:
        """Leave everything as others may find it when the flat loop gives the event loop back."""
        counters = self.counters
        counters.skipped += skipped
        if self._only is not None:
            self._only.counts.handled += handled
        counters.records_consumed[partition.key.topic] += count
        self.unaged += count
        if raw is not None:
            if count:
                self.last, self.seen_at = raw, time.time()
            position = raw.offset + 1 if done else raw.offset
            if position > partition.watermark.position:
                partition.watermark.advance(position)


def _step(route: Route, key: TopicPartition, counters: Counters, batch: Collecting | None) -> Step:
    call = make_call(route.handler, key)
    return Step(route.name, route.matches, call, counters.routes[route.name], route.tombstones, batch)


def _as_decode_error(error: Exception) -> DecodeError:
    """Return the error of a record that is not an event; a match that raised means that it has no route."""
    if isinstance(error, DecodeError):
        return error
    return DecodeError("undecodable", f"no route can be found for it: {place_of(error)}")
