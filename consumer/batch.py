"""Batches: the events of one route and one partition, in offset order, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any

from consumer.dispatch import HandlerFailedError, Route, awaited
from consumer.partition import Partition, size_of
from consumer.record import Record
from consumer.tally import RouteTally


class RouteBatch:
    """Collects events until there are ``max_records`` or ``max_seconds`` have gone by; lives as long as its lanes.

    While a call is under way the next batch is made; when that is full too, the partition is blocked: intake waits. A
    batch holds the watermark at its first record until it is done.
    """

    def __init__(
        self,
        route: Route,
        partition: Partition,
        counts: RouteTally,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        done: Callable[[int, HandlerFailedError | None], None],
    ) -> None:
        """``done`` is told the first offset of each batch that ended, and its error if it failed."""
        self._route = route
        self._partition = partition
        self._counts = counts
        self._spawn = spawn
        self._done = done
        self._events: list[Any] = []
        self._raws: list[Any] = []
        self._bytes = 0
        self._calling = False
        self._full = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, event: Any, raw: Any) -> None:
        """Take one event; when it fills the batch the handler is called, or waits for the call under way."""
        events, partition = self._events, self._partition
        if not events:
            assert partition.watermark is not None
            partition.watermark.hold(raw.offset)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._route.handler.max_seconds, self.call_now)
        events.append(event)
        self._raws.append(raw)
        size = size_of(raw)
        self._bytes += size
        partition.in_flight_records += 1
        partition.in_flight_bytes += size
        if len(events) >= self._route.handler.max_records:
            self.call_now()

    def call_now(self) -> None:
        """Call the handler with what there is: it is full, its time has come, or the partition is drained."""
        if not self._events or self._partition.halt is not None:
            return
        if self._calling:
            if not self._full:
                self._full = True
                self._partition.blocked += 1
            return
        if self._timer is not None:
            self._timer.cancel()
        events, raws, size = self._events, self._raws, self._bytes
        self._events, self._raws, self._bytes = [], [], 0
        if self._full:
            self._full = False
            self._partition.blocked -= 1
        self._call(events, raws, size)

    def _call(self, events: list[Any], raws: list[Any], size: int) -> None:
        handler, key = self._route.handler, self._partition.key
        try:
            if handler.wants_record:
                records = [Record(*key, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in raws]
                result = handler.call(events, records)
            else:
                result = handler.call(events)
        except BaseException as error:
            self._done(raws[0].offset, HandlerFailedError(self._route.name, error))
            return
        if result is not None and isawaitable(result):
            self._calling = True
            self._spawn(self._finish_later(result, raws, size))
        else:
            self._counts.handled += len(raws)
            self._finish(raws, size)

    async def _finish_later(self, result: Awaitable[Any], raws: list[Any], size: int) -> None:
        try:
            await awaited(result, self._route.name, self._counts)
        except HandlerFailedError as failed:
            self._done(raws[0].offset, failed)
            return
        self._counts.handled += len(raws) - 1  # awaited() counted one
        self._calling = False
        self._finish(raws, size)
        if self._full or self._partition.closing:
            self.call_now()

    def _finish(self, raws: list[Any], size: int) -> None:
        partition = self._partition
        assert partition.watermark is not None
        partition.watermark.release(raws[0].offset)
        partition.in_flight_records -= len(raws)
        partition.in_flight_bytes -= size
        self._done(raws[0].offset, None)
