"""Batches: the events of one route and one partition, in offset order, one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from consumer.delivery.dispatch import awaited
from consumer.delivery.failure import FailedCall, FailureHandler, Verdict
from consumer.delivery.fast_loop import needs_awaiting
from consumer.errors import DecodeError, HandlerFailedError
from consumer.instructions import Reject
from consumer.observe.counters import RouteCounters
from consumer.partition.chunk import Chunk
from consumer.record import Record
from consumer.routes.route import Route

Reader = Callable[[], Iterable[Any]]


class Made(NamedTuple):
    """A batch that is called."""

    length: int
    raws: list[Any]
    """Raw records beside the events, if the handler wants Records; else empty."""
    first: int
    readers: list[Reader]
    """Read the chunks that it came from once more."""


class RouteBatch:
    """Collects events until there are ``max_records``, or ``max_seconds`` or half the partition's bytes have gone by.

    Lives as long as its lanes. While a call is under way the next batch is made; when that is full too, the partition
    is blocked: intake waits. A batch holds the watermark at its first record until all of it has an outcome.
    """

    def __init__(
        self,
        route: Route,
        failure_handler: FailureHandler,
        counts: RouteCounters,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        done: Callable[[], None],
        chosen: Callable[[Any], tuple[Any, Sequence[Route]]],
        max_bytes: int,
    ) -> None:
        """``done`` is told whenever a batch ended; ``chosen`` says which routes get a raw record (``dispatch.py``)."""
        self.records = 0
        """Records in the making and in the call under way."""
        self.bytes = 0
        self._route = route
        self._failure_handler = failure_handler
        self._partition = failure_handler.partition
        self._counts = counts
        self._spawn = spawn
        self._done = done
        self._chosen = chosen
        self.max_records = route.handler.max_records
        self.max_bytes = max_bytes
        self.wants_record = route.handler.wants_record
        self.events: list[Any] = []
        """The batch in the making; another list after each call."""
        self.raws: list[Any] = []
        self.size = 0
        self._readers: list[Reader] = []
        self._reading: list[Reader] = []
        """Reads the chunk that is in work."""
        self._first = -1
        self._calling = False
        self._full = False
        self._timer: asyncio.TimerHandle | None = None

    def reads_from(self, chunk: Chunk) -> None:
        """Note where the next records come from: a batch that fails reads them again, as nothing is kept of them."""
        self._reading = [chunk.reread] if chunk.reread is not None else []
        self._readers = [*self._readers, *self._reading] if self.events else self._reading

    def chunk_ended(self) -> None:
        """Keep nothing of a chunk of which nothing is in the making."""
        self._reading = []
        if not self.events:
            self._readers = []

    def add(self, event: Any, raw: Any) -> None:
        """Take one event; when it fills the batch the handler is called, or waits for the call under way.

        The flat loop (``fast_loop.py``) does the same by itself, without a call an event.
        """
        if not self.events:
            self.begin(raw.offset)
        self.events.append(event)
        if self.wants_record:
            self.raws.append(raw)
        self.size += len(raw.value)
        if len(self.events) >= self.max_records or self.size >= self.max_bytes:
            self.call_now()

    def begin(self, offset: int) -> None:
        """Hold the watermark at the first record of a batch, and set its time."""
        self._partition.watermark.hold(offset)
        self._first = offset
        self._timer = asyncio.get_running_loop().call_later(self._route.handler.max_seconds, self.call_now)

    @property
    def blocked(self) -> bool:
        """Whether no more may be added: it is full behind a call under way, or the partition has ended."""
        return self._full or self._partition.ended

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes that are not done: those in the making and those in the call under way."""
        return self.records + len(self.events), self.bytes + self.size

    def call_now(self) -> None:
        """Call the handler with what there is: it is full, its time has come, or the partition is drained."""
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
        made = Made(len(events), self.raws, self._first, self._readers)
        self.events, self.raws, self._readers = [], [], self._reading
        self.records, self.bytes, self.size = made.length, self.size, 0
        if self._full:
            self._full = False
            self._partition.blocked -= 1
        rest, failed = self._begin_call(events, made.raws)
        if rest is None and failed is None:
            self._finish(made)
        else:
            self._calling = True
            self._spawn(self._finish_later(made, rest, failed))

    def resume(self) -> None:
        """Go on after a pause of the partition."""
        if self._full and not self._calling:
            self.call_now()

    # -- calls ---------------------------------------------------------------------------------------------------

    def _begin_call(
        self, events: list[Any], raws: list[Any]
    ) -> tuple[Awaitable[Any] | None, HandlerFailedError | None]:
        """Call the handler; return what is to be awaited, if anything, or how it failed."""
        handler, key, count = self._route.handler, self._partition.key, len(events)  # the list is the handler's now
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
        """Await a call to its end; return how it failed, if it did."""
        if rest is not None:
            try:
                await awaited(rest, self._route.name, self._counts, self._partition, self._counts.seconds.observe)
            except HandlerFailedError as failed:
                return failed
            self._counts.handled += count - 1  # awaited() counted one
        return None

    async def _finish_later(self, made: Made, rest: Awaitable[Any] | None, failed: HandlerFailedError | None) -> None:
        failed = failed or await self._end_call(rest, made.length)
        if failed is not None and not await self._settle(made, failed):
            return
        self._calling = False
        self._finish(made)
        if self._full or self._partition.closing:
            self.call_now()

    def _finish(self, made: Made) -> None:
        self._partition.watermark.release(made.first)
        self.records = self.bytes = 0
        self._done()

    # -- failures ------------------------------------------------------------------------------------------------

    async def _settle(self, made: Made, first_failure: HandlerFailedError) -> bool:
        """Bring every record of a failed batch to its outcome; False when the partition ended first."""
        failed: HandlerFailedError | None = first_failure
        left = made.raws or self._reread(made)
        failed_call = self._failed_call(made.first)
        try:
            while failed is not None and not self._partition.over:
                rejected = _rejected(failed, len(left))
                if rejected:
                    failed_call.rejects()
                    for index in sorted(rejected):
                        if not await self._failure_handler.bury(left[index], failed_call.cause(failed, "rejected")):
                            return False
                    left = [raw for index, raw in enumerate(left) if index not in rejected]
                    await self._others_unpaused()
                else:
                    verdict = await failed_call.meet(failed.error)
                    if verdict is Verdict.ENDED:
                        return False
                    if verdict is Verdict.DEAD_LETTER:
                        return await self._settle_singly(left)
                failed = await self._call_again(left) if left else None
        finally:
            failed_call.end()
        return failed is None

    async def _settle_singly(self, raws: list[Any]) -> bool:
        """Call the handler with each record alone; only those that fail alone become dead letters."""
        for raw in raws:
            failed_call = self._failed_call(raw.offset, attempts=1)
            try:
                await self._others_unpaused()
                while (failed := await self._call_again([raw])) is not None:
                    verdict = await failed_call.meet(failed.error)
                    if verdict is Verdict.CALL_AGAIN:
                        continue
                    if verdict is Verdict.ENDED or not await self._failure_handler.bury(raw, failed_call.cause(failed)):
                        return False
                    break
            finally:
                failed_call.end()
        return True

    async def _others_unpaused(self) -> None:
        """Wait for what others say Pause for, before a call that has not waited."""
        if self._partition.pausing:
            await self._failure_handler.gate.wait(0.0, own_pause=False, place=False)

    async def _call_again(self, raws: list[Any]) -> HandlerFailedError | None:
        """Call the handler with records decoded anew, as it may have changed the events; return how it failed."""
        events = [self._chosen(raw)[0] for raw in raws]
        rest, failed = self._begin_call(events, raws)
        return failed or await self._end_call(rest, len(raws))

    def _reread(self, made: Made) -> list[Any]:
        """Find the raw records of a batch once more, where its chunks came from."""
        found: list[Any] = []
        for raw in chain.from_iterable(map(_readable, made.readers)):
            past = found[-1].offset if found else made.first - 1
            if raw.offset > past and len(found) < made.length and self._takes(raw):
                found.append(raw)
        if len(found) != made.length:
            raise RuntimeError(f"a batch of {made.length} events was read again as {len(found)}")
        return found

    def _takes(self, raw: Any) -> bool:
        try:
            return self._route in self._chosen(raw)[1]
        except DecodeError:
            return False

    def _failed_call(self, offset: int, attempts: int | None = None) -> FailedCall:
        return FailedCall(self._failure_handler, self._route.name, offset, of_batch=True, attempts=attempts)


def _rejected(failed: HandlerFailedError, count: int) -> set[int]:
    """Which records of a batch a Reject means; none when it is another error, or means none that exist."""
    if not isinstance(failed.error, Reject):
        return set()
    if failed.error.indexes is None:
        return set(range(count))
    return {int(index) for index in failed.error.indexes if index in range(count)}


def _readable(reader: Reader) -> Iterator[Any]:
    """Read a chunk as far as it goes; what was salvaged behind a broken record is a chunk of its own."""
    with contextlib.suppress(Exception):
        yield from reader()
