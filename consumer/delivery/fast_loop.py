"""The fast loop: handles the records of a chunk in one function, as long as no call waits.

With a single route whose handler is a plain function, or takes batches, nothing between two records can suspend. So
parsing, decoding, matching and calling are one loop of one function, and the state that other code reads (position,
counts) is written once at its end. Measured with 325-byte events: 1.5 µs a record, of which 0.9 µs are parsing and
decoding; dispatching record by record takes 2.0 µs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any, NamedTuple, Protocol

from consumer.delivery.decoding import Decoder
from consumer.delivery.turns import Turns
from consumer.errors import HandlerFailedError
from consumer.observe.counters import Counters
from consumer.record import RawRecord, Record, TopicPartition
from consumer.routes.match import Predicate

LOOK_EVERY = 16
"""Records between two reads of the clock, unless they took longer than ``SLOW_SECONDS``."""
SLOW_SECONDS = 0.001
REFUSALS = 16
"""Values refused by the first decoder in one turn before all further ones go to the second."""


class Collected(Protocol):
    """A batch as the fast loop fills it (``batch.py``)."""

    events: list[Any]
    raws: list[RawRecord]
    size: int
    max_records: int
    max_bytes: int
    wants_record: bool

    @property
    def blocked(self) -> bool:
        """Whether no event may be added."""

    def begin(self, offset: int) -> None:
        """Begin a batch with the record at ``offset``."""

    def call_now(self) -> None:
        """Call the handler with the collected events."""


class CallTarget(NamedTuple):
    """Destination of an event: a plain function, with or without the Record, or a batch."""

    handle: Callable[..., Any]
    wants_record: bool = False
    batch: Collected | None = None


class FastLoopResult(NamedTuple):
    """Progress of one turn of the fast loop: every record below ``position`` is done, or held by its batch."""

    records: int
    position: int | None
    exhausted: bool
    raw: Any = None
    """The record at ``position`` if it is not done: it failed, or it ends with ``rest``."""
    rest: Awaitable[Any] | None = None
    """The awaitable that a plain function returned."""
    failed: Exception | None = None
    """The failure of ``raw``; without ``raw`` the failure to read the next record."""
    last: Any = None
    """The last record that was pulled."""


FastLoop = Callable[[Iterator[RawRecord], Turns], FastLoopResult]


def make_fast_loop(  # noqa: C901, PLR0915 - one loop, on purpose, and the names that it binds
    route: str,
    key: TopicPartition,
    target: CallTarget,
    matches: Predicate | None,
    decoder: Decoder,
    counters: Counters,
    unmatched: Callable[[int], None],
) -> FastLoop:
    """Make the fast loop of one partition."""
    monotonic, counts = time.monotonic, counters.routes[route]
    step = 1
    handle, with_record, batch = target
    topic, partition = key
    if batch is not None:
        max_records, max_batch_bytes, wants_record = batch.max_records, batch.max_bytes, batch.wants_record

    def fast_loop(records: Iterator[RawRecord], turns: Turns) -> FastLoopResult:  # noqa: C901, PLR0912, PLR0915
        nonlocal step
        first, reread, max_bytes = decoder.first, decoder.reread, decoder.max_record_bytes
        count = handled = skipped = refused = 0
        look_at, looked = step, monotonic()
        began = looked
        raw: Any = None
        rest: Awaitable[Any] | None = None
        failed: Any = None
        calling = False
        if batch is not None:
            events, size = batch.events, batch.size
        try:
            for raw in records:
                count += 1
                value = raw.value
                if value is None:
                    skipped += 1
                    continue
                try:
                    event = first(value) if len(value) <= max_bytes else reread(value)
                except Exception:
                    event = reread(value)
                    refused += 1
                    if refused == REFUSALS:  # a producer added a field: avoid thousands of exceptions a second
                        first = reread
                if matches is None or matches(event):
                    if batch is not None:
                        if not events:
                            batch.begin(raw.offset)
                        events.append(event)
                        if wants_record:
                            batch.raws.append(raw)
                        size += len(value)
                        result = None
                        if len(events) >= max_records or size >= max_batch_bytes:
                            batch.size = size
                            batch.call_now()
                            events, size = batch.events, batch.size
                            if batch.blocked:
                                handled += 1
                                break
                    else:
                        calling = True
                        if with_record:
                            headers = tuple(raw.headers)
                            record = Record(topic, partition, raw.offset, raw.timestamp, raw.key, value, headers)
                            result = handle(event, record)
                        else:
                            result = handle(event)
                        calling = False
                    if result is not None and needs_awaiting(result, route):
                        rest = result
                        break
                    handled += 1
                else:
                    unmatched(raw.offset)
                    skipped += 1
                if count >= look_at:
                    now = monotonic()
                    step = LOOK_EVERY if now - looked < SLOW_SECONDS else 1
                    if now >= turns.end:
                        break
                    look_at, looked = count + step, now
            else:
                return FastLoopResult(count, raw.offset + 1 if raw is not None else None, exhausted=True, last=raw)
        except BaseException as error:
            if not calling and not isinstance(error, Exception):
                raise
            failed = HandlerFailedError(route, error) if calling else error
        finally:
            counters.skipped += skipped
            if batch is not None:  # a batch counts its own calls
                batch.size = size
            else:
                counts.handled += handled
                counts.inline_seconds += monotonic() - began
        # An error between two records belongs to the record batch; an error within a record leaves that record undone.
        done = handled + skipped == count
        position = None if raw is None else raw.offset + 1 if done else raw.offset
        return FastLoopResult(
            count, position, exhausted=False, raw=None if done else raw, rest=rest, failed=failed, last=raw
        )

    return fast_loop


def needs_awaiting(result: Any, name: str) -> bool:
    """Whether a plain function (a lambda, a wrapper) returned an awaitable, whose work would be lost if not awaited.

    Raise HandlerFailedError for a generator, which does nothing until it is iterated.
    """
    if isgenerator(result) or isasyncgen(result):
        raise HandlerFailedError(name, TypeError("a generator does nothing until it is iterated"))
    return isawaitable(result)
