"""Batches: the events of one route and one partition, in offset order, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from consumer.dispatch import Route, awaited
from consumer.errors import HandlerFailedError
from consumer.partition import Partition
from consumer.record import Record
from consumer.stretch import needs_awaiting
from consumer.tally import RouteTally


class RouteBatch:
    """Collects events until there are ``max_records``, or ``max_seconds`` or half the partition's bytes have gone by.

    Lives as long as its lanes. While a call is under way the next batch is made; when that is full too, the partition
    is blocked: intake waits. A batch holds the watermark at its first record until it is done.
    """

    def __init__(
        self,
        route: Route,
        partition: Partition,
        counts: RouteTally,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        done: Callable[[int, HandlerFailedError | None], None],
        max_bytes: int,
    ) -> None:
        """``done`` is told the first offset of each batch that ended, and its error if it failed."""
        self.records = 0
        """Records in the making and in the call under way."""
        self.bytes = 0
        self._route = route
        self._partition = partition
        self._counts = counts
        self._spawn = spawn
        self._done = done
        self.max_records = route.handler.max_records
        self.max_bytes = max_bytes
        self.wants_record = route.handler.wants_record
        self.events: list[Any] = []
        """The batch in the making; another list after each call."""
        self.raws: list[Any] = []
        self.size = 0
        self._first = -1
        self._calling = False
        self._full = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, event: Any, raw: Any) -> None:
        """Take one event; when it fills the batch the handler is called, or waits for the call under way.

        The flat loop (``stretch.py``) does the same by itself, without a call an event.
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
        assert self._partition.watermark is not None
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
        if self._calling:
            if not self._full:
                self._full = True
                self._partition.blocked += 1
            return
        if self._timer is not None:
            self._timer.cancel()
        events, raws, first = self.events, self.raws, self._first
        self.events, self.raws = [], []
        self.records, self.bytes, self.size = len(events), self.size, 0
        if self._full:
            self._full = False
            self._partition.blocked -= 1
        self._call(events, raws, first)

    def _call(self, events: list[Any], raws: list[Any], first: int) -> None:
        handler, key = self._route.handler, self._partition.key
        try:
            if self.wants_record:
                records = [Record(*key, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in raws]
                result = handler.call(events, records)
            else:
                result = handler.call(events)
            waits = result is not None and needs_awaiting(result, self._route.name)
        except BaseException as error:
            failed = error if isinstance(error, HandlerFailedError) else HandlerFailedError(self._route.name, error)
            self._done(first, failed)
            return
        if waits:
            self._calling = True
            self._spawn(self._finish_later(result, len(events), first))
        else:
            self._counts.handled += len(events)
            self._finish(first)

    async def _finish_later(self, result: Awaitable[Any], count: int, first: int) -> None:
        try:
            await awaited(result, self._route.name, self._counts, self._partition)
        except HandlerFailedError as failed:
            self._done(first, failed)
            return
        self._counts.handled += count - 1  # awaited() counted one
        self._calling = False
        self._finish(first)
        if self._full or self._partition.closing:
            self.call_now()

    def _finish(self, first: int) -> None:
        assert self._partition.watermark is not None
        self._partition.watermark.release(first)
        self.records = self.bytes = 0
        self._done(first, None)
