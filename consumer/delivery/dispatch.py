"""Dispatch: from a raw record to the calls of its routes. Nothing here knows of workers.

``pull`` is the flat loop: it decodes, matches, fills batches and calls handlers for any number of routes. It awaits the
first call of a record that has one route. A record of several routes leaves it as ``Ongoing`` when a call waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from consumer.delivery.calls import DONE, Call, Driver, coroutine_of, make_call
from consumer.delivery.collecting import Collecting
from consumer.delivery.failure import FailedCall
from consumer.delivery.gate import Gate
from consumer.delivery.pipeline import Pipeline
from consumer.delivery.turns import Turns
from consumer.errors import DecodeError, HandlerFailedError, place_of
from consumer.observe.counters import Counters, RouteCounters
from consumer.observe.waiting import CallUnderWay
from consumer.partition.chunk import Chunk, size_of_headers
from consumer.partition.hold import Hold
from consumer.partition.state import Partition, Phase
from consumer.record import RawRecord, TopicPartition
from consumer.routes.match import Predicate, fused
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
    bare: Callable[[Any], Any] | None
    """The handler itself, if it takes the event alone."""


class Plans(dict[tuple[bool, ...], tuple[list[Step], list[Step]]]):
    """Steps that call and steps that collect, by which routes do not match; made when that first occurs."""

    LIMIT = 1024

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self._steps = steps

    def __missing__(self, refused: tuple[bool, ...]) -> tuple[list[Step], list[Step]]:
        if len(self) >= self.LIMIT:
            self.clear()
        steps = [step for step, no in zip(self._steps, refused, strict=True) if not no]
        self[refused] = found = [each for each in steps if each.batch is None], [each for each in steps if each.batch]
        return found


class Ongoing(msgspec.Struct, eq=False):
    """A record on its way through its routes, after a call of its that waits or failed."""

    raw: RawRecord
    event: Any
    steps: list[Step]
    """Its routes without batches, in file order."""
    at: int = 0
    """Which of them is being called."""
    rest: Awaitable[Any] | None = None
    """What is left to await of the call under way; None when there is none."""
    began: float = 0.0
    """Monotonic time at which its last call began; 0 before its first, while it queues behind its key."""
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


class Puller(Protocol):
    """The side of the workers that the flat loop knows."""

    partition: Partition
    turns: Turns
    gate: Gate
    busy: dict[bytes | None, deque[Ongoing] | None]
    """Keys whose records go to ``queue_behind``."""
    serial: bool
    """Whether a record is pulled only when the one before has its outcome."""

    def queue_behind(self, raw: RawRecord, event: Any, steps: list[Step]) -> None:
        """Keep a record until its key is free."""

    def has_room(self) -> bool:
        """Whether another record may be taken; asked after each record that takes some."""

    def hold(self, raw: RawRecord, now: float) -> int:
        """Hold a record whose call waits or failed, so that others may be pulled past it; return its size."""

    def another(self) -> None:
        """Let another worker pull, as this one will await a call."""

    def release(self, raw: RawRecord, size: int) -> Ongoing | None:
        """Count a held record as done; return the one that waits behind its key."""

    async def see_to(self, ongoing: Ongoing | None) -> None:
        """Do what the flat loop stopped for: full batches, the end of a turn, a held record's way to its outcome."""

    def goes_on(self, chunk: Chunk) -> bool:
        """Whether this puller may go on with its chunk."""


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
        self.key = key
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
        self._plan = fused([step.matches for step in self._every], Plans(self._every))
        self._free: list[Driver] = []
        """Drivers whose coroutine has ended; there are never more than calls at once."""
        self._driver = Driver(self._free)
        self._look_every = 1
        self._awaits = False
        """Whether the last call waited: the next one will too, so its first step is not taken apart from the rest."""
        self.under_way: dict[int, float] = {}
        """Offsets of the records whose calls flat loops await, and monotonic times at which these began. Each began
        before a drain did."""
        self.unaged = 0
        """Records that were pulled and whose age is not noted yet."""
        self.last: Any = None
        """The last of them."""
        self.seen_at = 0.0
        """Seconds since 1970 at which that was."""

    def _rest(self, yielded: Any) -> Awaitable[None]:
        """Return what awaits the rest of the call that was just begun, and have another driver begin the next."""
        driver = self._driver
        self._driver = self._free.pop() if self._free else Driver(self._free)
        return driver.resume(yielded)

    @property
    def calls(self) -> list[CallUnderWay]:
        """The calls that flat loops await; read from any thread."""
        if self._only is None:
            return []
        return [CallUnderWay(began, self._only.name, offset) for offset, began in list(self.under_way.items())]

    def abandon(self) -> None:
        """Count the calls that flat loops await as left without an outcome."""
        if self._only is not None:
            self._only.counts.abandoned += len(self.under_way)

    def steps_of(self, raw: RawRecord) -> tuple[Any, list[Step]]:
        """Decode a record and match its routes; raise DecodeError. A record that nobody chose is not even decoded."""
        choice = self._choose(self.key, raw) if self._choose is not None else None
        if self._choose is not None and choice is None:
            return None, []
        value = raw.value
        decoder = self._decoder if choice is None else choice.decoder
        event = None if value is None else decoder.decode(value)
        if choice is not None:
            return event, [self._steps[route.name] for route in choice.routes(event)]
        return event, self._matching(event, raw)

    def _matching(self, event: Any, raw: RawRecord) -> list[Step]:
        if event is None:
            return [step for step in self._every if step.tombstones]
        try:
            return [step for step in self._every if step.matches is None or step.matches(event, raw)]
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
        monotonic, index = time.monotonic, at
        began = monotonic()
        for name, _, call, counts, _, _, bare in steps[at:] if at else steps:
            try:
                result = bare(event) if bare is not None else call(event, raw)
                if result is not None and (coroutine := coroutine_of(result, name)) is not None:
                    yielded = self._driver.begin(coroutine)
                    if yielded is not DONE:
                        counts.inline_seconds += monotonic() - began
                        return Ongoing(raw, event, steps, index, self._rest(yielded), began)
            except BaseException as error:
                self._driver = Driver(self._free)
                counts.inline_seconds += monotonic() - began
                return Ongoing(raw, event, steps, index, None, began, failure=HandlerFailedError.of(name, error))
            now = monotonic()
            counts.inline_seconds += now - began
            counts.handled += 1
            index, began = index + 1, now
        return None

    async def pull(self, chunk: Chunk, puller: Puller) -> bool:  # noqa: C901, PLR0912, PLR0915 - the flat loop, measured
        """Pull records in place and bring each to its outcome; return whether the chunk is exhausted.

        The puller sees to the record whose call waits or failed, and to the end of a turn, a lack of room, or a full
        batch. Before that, every record below the partition's position is done, held or collected, but for the one
        that is handed over. Raises UnreadableError.

        The first call that waits is awaited here, if the record has one route. In a serial lane its record is not held:
        no other is pulled beside it, and the position passes it only when it is done.
        """
        monotonic, only, plan, counters = time.monotonic, self._only, self._plan, self.counters
        reader, reread, max_bytes = self._decoder.reader, self._decoder.reread, self._decoder.max_record_bytes
        partition, turns, busy, room = puller.partition, puller.turns, puller.busy, puller.has_room
        consumed, topic = counters.records_consumed, partition.key.topic
        collects, chooses = self._collects, self._choose is not None
        first, begin = reader.first, self._driver.begin
        batch, counts = None, counters.no_route
        if only is not None:
            name, matches, call, counts, _, batch, handle = only
            is_async = self._is_async
        count = handled = skipped = held = 0
        look_at, looked = self._look_every, monotonic()
        began = looked
        raw: Any = None
        ongoing: Ongoing | None = None
        rest: Awaitable[Any] | None = None
        done = reading = True
        stop = settled = False
        wall, watermark, under_way = time.time, partition.watermark, self.under_way
        awaits, loop, serial = self._awaits, turns.loop, puller.serial
        if batch is not None:
            events, size, (max_records, max_batch_bytes) = batch.events, batch.size, batch.room
        try:
            for raw in chunk.records:
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
                            steps, collecting = plan(event, raw)
                            if collecting:
                                for step in collecting:
                                    step[5].add(event, raw)
                            elif not steps:
                                self._unmatched(raw.offset)
                                skipped += 1
                        elif matches is not None and not matches(event, raw):
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
                        events, size, (max_records, max_batch_bytes) = batch.events, batch.size, batch.room
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
                            if raw.key is not None:
                                size += len(raw.key)
                            if raw.headers:
                                size += size_of_headers(raw.headers)
                        size += len(value)  # type: ignore[arg-type]  # batch routes take no tombstones
                        done = True
                        stop = len(events) >= max_records or size >= max_batch_bytes
                    elif busy and raw.key in busy:
                        puller.queue_behind(raw, event, steps)
                        done = True
                        stop = not room()
                    elif only is None:
                        ongoing = self.run(raw, event, steps)
                        done = ongoing is None
                        stop = not done or (collects and not room())
                    else:
                        try:
                            result = handle(event) if handle is not None else call(event, raw)
                            if not is_async and result is not None:
                                result = coroutine_of(result, name)
                            if result is not None and not awaits:
                                yielded = begin(result)
                                result = None if yielded is DONE else self._rest(yielded)
                        except BaseException as error:
                            ongoing = Ongoing(raw, event, steps, failure=HandlerFailedError.of(name, error))
                            self._driver = Driver(self._free)
                            stop = True
                        else:
                            if result is None:
                                handled += 1
                                done = True
                            else:
                                stop, rest = True, result
                reading = True
                if count < look_at and not stop:
                    continue
                now = monotonic()
                if not stop:
                    self._look_every = LOOK_EVERY if now - looked < SLOW_SECONDS else 1
                    if now < turns.end:
                        look_at, looked = count + self._look_every, now
                        continue
                    stop = True
                counters.skipped += skipped
                counts.handled += handled
                consumed[topic] += count
                self.unaged += count
                self.last, self.seen_at = raw, wall()
                position = raw.offset + 1 if done else raw.offset
                if position > watermark.position:  # noqa: PLR1730 - max() costs three times as much
                    watermark.position = position
                if batch is not None:
                    batch.size = size
                elif only is not None:
                    counts.inline_seconds += now - began
                count = handled = skipped = 0
                settled, reading = True, False
                if ongoing is not None:
                    ongoing.size = puller.hold(raw, now)
                elif rest is not None:
                    if not serial:
                        held = puller.hold(raw, now)
                        puller.another()
                    rounds = loop.rounds
                    counts.waiting += 1
                    under_way[raw.offset] = now
                    try:
                        await rest
                    except BaseException as error:
                        if puller.gate.has_cancelled(error):
                            raise
                        ongoing = Ongoing(raw, event, steps, failure=HandlerFailedError.of(name, error))
                        ongoing.size = puller.hold(raw, now) if serial else held
                    else:
                        counts.handled += 1
                        if serial:
                            watermark.position = raw.offset + 1
                        else:
                            ongoing = puller.release(raw, held)
                    finally:
                        del under_way[raw.offset]
                        counts.waiting -= 1
                        began = monotonic()
                        counts.took(began - now)
                    awaits, rest, stop = loop.rounds != rounds, None, began >= turns.end
                # Nothing else of a serial lane changes while its call waits: no chunk, no room, nothing parked.
                alone = serial and not stop and ongoing is None and not partition.pauses
                if stop or ongoing is not None:
                    await puller.see_to(ongoing)
                    ongoing, began, first = None, monotonic(), reader.first
                if not (alone and partition.phase is Phase.OPEN) and not puller.goes_on(chunk):
                    return False
                stop, done, settled, reading = False, True, False, True
                begin, look_at, looked = self._driver.begin, self._look_every, began
                if batch is not None:
                    events, size, (max_records, max_batch_bytes) = batch.events, batch.size, batch.room
        except Exception as error:
            if not reading:
                raise
            raise UnreadableError from error
        else:
            return True
        finally:
            self._awaits = awaits
            if not settled:
                counters.skipped += skipped
                counts.handled += handled
                consumed[topic] += count
                self.unaged += count
                if count:
                    self.last, self.seen_at = raw, wall()
                if raw is not None:
                    watermark.advance(max(watermark.position, raw.offset + 1 if done else raw.offset))
                if batch is not None:
                    batch.size = size
                elif only is not None:
                    counts.inline_seconds += monotonic() - began


def _step(route: Route, key: TopicPartition, counters: Counters, batch: Collecting | None) -> Step:
    handler = route.handler
    call, bare = make_call(handler, key), None if handler.wants_record or handler.wants_bytes else handler.call
    return Step(route.name, route.matches, call, counters.routes[route.name], route.tombstones, batch, bare)


def _as_decode_error(error: Exception) -> DecodeError:
    """Return the error of a record that is not an event; a match that raised means that it has no route."""
    if isinstance(error, DecodeError):
        return error
    return DecodeError("undecodable", f"no route can be found for it: {place_of(error)}")
