"""Batches: events of one route and one partition, in offset order, one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from consumer.delivery.dispatch import await_call
from consumer.delivery.failure import FailedCall, FailureHandler, Verdict
from consumer.delivery.fast_loop import needs_awaiting
from consumer.errors import DecodeError, HandlerFailedError
from consumer.instructions import Reject
from consumer.observe.counters import RouteCounters
from consumer.partition.chunk import Chunk
from consumer.record import RawRecord, Record
from consumer.routes.route import Route

Reader = Callable[[], Iterable[RawRecord]]


class CalledBatch(NamedTuple):
    """A batch with which the handler was called."""

    length: int
    raws: list[RawRecord]
    """Raw records of the events, if the handler takes Records; else empty."""
    first: int
    """Offset of its first record."""
    readers: list[Reader]
    """Read the batch's chunks a second time."""


class RouteBatch:
    """Collects events and calls the handler after ``max_records``, ``max_seconds`` or half of the partition's bytes.

    Lives as long as its lanes. While a call is under way, the next batch is collected. When that is full too, the
    partition is blocked and takes no more records. A batch holds the watermark at its first record until all of its
    records have an outcome.
    """

    def __init__(
        self,
        route: Route,
        failure_handler: FailureHandler,
        counts: RouteCounters,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        done: Callable[[], None],
        decode_and_route: Callable[[RawRecord], tuple[Any, Sequence[Route]]],
        max_bytes: int,
    ) -> None:
        """``done`` is called after each batch; ``decode_and_route`` returns a record's event and its routes."""
        self.records = 0
        """Records in the call under way."""
        self.bytes = 0
        self._route = route
        self._failure_handler = failure_handler
        self._partition = failure_handler.partition
        self._counts = counts
        self._spawn = spawn
        self._done = done
        self._decode_and_route = decode_and_route
        self.max_records = route.handler.max_records
        self.max_bytes = max_bytes
        self.wants_record = route.handler.wants_record
        self.events: list[Any] = []
        """Events collected for the next call; replaced by a new list at each call."""
        self.raws: list[RawRecord] = []
        self.size = 0
        self._readers: list[Reader] = []
        self._chunk_reader: list[Reader] = []
        """Reads the current chunk a second time; empty if the chunk cannot be read again."""
        self._first = -1
        self._calling = False
        self._full = False
        self._timer: asyncio.TimerHandle | None = None

    def begin_chunk(self, chunk: Chunk) -> None:
        """Note the chunk of the next records: raw records are not kept, so a failed batch reads its chunks again."""
        self._chunk_reader = [chunk.reread] if chunk.reread is not None else []
        self._readers = [*self._readers, *self._chunk_reader] if self.events else self._chunk_reader

    def end_chunk(self) -> None:
        """Drop the reference to a chunk when no collected event came from it."""
        self._chunk_reader = []
        if not self.events:
            self._readers = []

    def add(self, event: Any, raw: RawRecord) -> None:
        """Add one event; call the handler when the batch is full, unless another call is under way.

        The fast loop (``fast_loop.py``) does the same inline, which saves a call for each event.
        """
        if not self.events:
            self.begin(raw.offset)
        self.events.append(event)
        if self.wants_record:
            self.raws.append(raw)
        value: Any = raw.value  # never None: batch routes take no tombstones
        self.size += len(value)
        if len(self.events) >= self.max_records or self.size >= self.max_bytes:
            self.call_now()

    def begin(self, offset: int) -> None:
        """Hold the watermark at the first record of a batch and start the ``max_seconds`` timer."""
        self._partition.watermark.hold(offset)
        self._first = offset
        self._timer = asyncio.get_running_loop().call_later(self._route.handler.max_seconds, self.call_now)

    @property
    def blocked(self) -> bool:
        """Whether no event may be added: the batch is full while a call is under way, or the partition has ended."""
        return self._full or self._partition.ended

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes without an outcome: those collected and those in the call under way."""
        return self.records + len(self.events), self.bytes + self.size

    def call_now(self) -> None:
        """Call the handler with the collected events: the batch is full, its time is up, or the partition drains."""
        if not self.events or self._partition.halt is not None or self._partition.over:
            return
        if self._calling or self._partition.pausing:
            if not self._full:
                self._full = True
                self._partition.blocked += 1
            return
        if self._timer is not None:
            self._timer.cancel()
        events = self.events
        called = CalledBatch(len(events), self.raws, self._first, self._readers)
        self.events, self.raws, self._readers = [], [], self._chunk_reader
        self.records, self.bytes, self.size = called.length, self.size, 0
        if self._full:
            self._full = False
            self._partition.blocked -= 1
        rest, failed = self._begin_call(events, called.raws)
        if rest is None and failed is None:
            self._finish(called)
        else:
            self._calling = True
            self._spawn(self._finish_later(called, rest, failed))

    def resume(self) -> None:
        """Resume after a pause of the partition."""
        if self._full and not self._calling:
            self.call_now()

    def _begin_call(
        self, events: list[Any], raws: list[RawRecord]
    ) -> tuple[Awaitable[Any] | None, HandlerFailedError | None]:
        """Call the handler; return its awaitable, if it returned one, or its failure."""
        handler, key = self._route.handler, self._partition.key
        count = len(events)  # taken before the call: the handler may change the list
        self._counts.batches.observe(count)
        began = time.monotonic()
        try:
            if self.wants_record:
                records = [Record(*key, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in raws]
                result = handler.call(events, records)
            else:
                result = handler.call(events)
            if result is not None and needs_awaiting(result, self._route.name):
                return result, None
        except BaseException as error:
            self._counts.seconds.observe(time.monotonic() - began)
            return None, error if isinstance(error, HandlerFailedError) else HandlerFailedError(self._route.name, error)
        self._counts.handled += count
        self._counts.seconds.observe(time.monotonic() - began)
        return None, None

    async def _end_call(self, rest: Awaitable[Any] | None, count: int) -> HandlerFailedError | None:
        """Await the end of a call; return its failure, if any."""
        if rest is not None:
            try:
                await await_call(rest, self._route.name, self._counts, self._partition, self._counts.seconds.observe)
            except HandlerFailedError as failed:
                return failed
            self._counts.handled += count - 1  # await_call() counted one
        return None

    async def _finish_later(
        self, called: CalledBatch, rest: Awaitable[Any] | None, failed: HandlerFailedError | None
    ) -> None:
        failed = failed or await self._end_call(rest, called.length)
        if failed is not None and not await self._settle(called, failed):
            return
        self._calling = False
        self._finish(called)
        if self._full or self._partition.closing:
            self.call_now()

    def _finish(self, called: CalledBatch) -> None:
        self._partition.watermark.release(called.first)
        self.records = self.bytes = 0
        self._done()

    async def _settle(self, called: CalledBatch, first_failure: HandlerFailedError) -> bool:
        """Give every record of a failed batch an outcome; return False if the partition ended first."""
        failed: HandlerFailedError | None = first_failure
        left = called.raws or self._reread(called)
        failed_call = self._failed_call(called.first)
        try:
            while failed is not None and not self._partition.over:
                rejected = _rejected(failed, len(left))
                if rejected:
                    failed_call.count_reject()
                    for index in sorted(rejected):
                        if not await self._failure_handler.dead_letter(
                            left[index], failed_call.cause(failed, "rejected")
                        ):
                            return False
                    left = [raw for index, raw in enumerate(left) if index not in rejected]
                    await self._wait_for_other_pauses()
                else:
                    verdict = await failed_call.wait_for_verdict(failed.error)
                    if verdict is Verdict.ENDED:
                        return False
                    if verdict is Verdict.DEAD_LETTER:
                        return await self._settle_singly(left)
                failed = await self._call_again(left) if left else None
        finally:
            failed_call.end()
        return failed is None

    async def _settle_singly(self, raws: list[RawRecord]) -> bool:
        """Call the handler with each record alone; only records that fail alone become dead letters."""
        for raw in raws:
            failed_call = self._failed_call(raw.offset, attempts=1)
            try:
                await self._wait_for_other_pauses()
                while (failed := await self._call_again([raw])) is not None:
                    verdict = await failed_call.wait_for_verdict(failed.error)
                    if verdict is Verdict.CALL_AGAIN:
                        continue
                    if verdict is Verdict.ENDED or not await self._failure_handler.dead_letter(
                        raw, failed_call.cause(failed)
                    ):
                        return False
                    break
            finally:
                failed_call.end()
        return True

    async def _wait_for_other_pauses(self) -> None:
        """Wait until no other record pauses the partition, before a call that follows without a wait."""
        if self._partition.pausing:
            await self._failure_handler.gate.wait(0.0, own_pause=False, has_slot=False)

    async def _call_again(self, raws: list[RawRecord]) -> HandlerFailedError | None:
        """Decode records again and call the handler with them; return its failure, if any.

        The events of the call before are not used again: the handler may have changed them.
        """
        events = [self._decode_and_route(raw)[0] for raw in raws]
        rest, failed = self._begin_call(events, raws)
        return failed or await self._end_call(rest, len(raws))

    def _reread(self, called: CalledBatch) -> list[RawRecord]:
        """Read the raw records of a batch again from its chunks."""
        found: list[RawRecord] = []
        for raw in chain.from_iterable(map(_read_until_error, called.readers)):
            last = found[-1].offset if found else called.first - 1
            if raw.offset > last and len(found) < called.length and self._is_routed_here(raw):
                found.append(raw)
        if len(found) != called.length:
            raise RuntimeError(f"a batch of {called.length} events had {len(found)} when it was read again")
        return found

    def _is_routed_here(self, raw: RawRecord) -> bool:
        try:
            return self._route in self._decode_and_route(raw)[1]
        except DecodeError:
            return False

    def _failed_call(self, offset: int, attempts: int | None = None) -> FailedCall:
        return FailedCall(self._failure_handler, self._route.name, offset, of_batch=True, attempts=attempts)


def _rejected(failed: HandlerFailedError, count: int) -> set[int]:
    """Return the indexes of the records that a Reject names; empty for another error, or if no index exists."""
    if not isinstance(failed.error, Reject):
        return set()
    if failed.error.indexes is None:
        return set(range(count))
    return {int(index) for index in failed.error.indexes if index in range(count)}


def _read_until_error(reader: Reader) -> Iterator[RawRecord]:
    """Yield the records of a chunk up to one that cannot be read; records salvaged behind it are another chunk."""
    with contextlib.suppress(Exception):
        yield from reader()
