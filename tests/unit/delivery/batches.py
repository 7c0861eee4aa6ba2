"""Batch routes, and a handler of batches that notes its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from consumer import Record
from consumer.routes.calling import InThread
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from tests.unit.delivery.log_source import keyed

HOUR = 3600.0
KINDS = ("sync", "async", "threaded")


def a_batch_route(
    handler: Callable[..., Any],
    name: str = "r0",
    *,
    max_records: int = 4,
    max_seconds: float = HOUR,
    threaded: bool = False,
) -> Route:
    bound = bind_handler(handler, "test")
    assert bound.takes_batches
    if threaded:
        bound = msgspec.structs.replace(bound, call=InThread(bound.call, 4), is_async=True)
    return Route(name, None, msgspec.structs.replace(bound, max_records=max_records, max_seconds=max_seconds))


class Batches:
    """A batch handler that notes the offsets of each call; its calls wait while it is shut."""

    def __init__(self, done: set[int] | None = None, *, shut: bool = False, failing: int | None = None) -> None:
        self.calls: list[list[int]] = []
        self.running = 0
        self.most_running = 0
        self.done = done if done is not None else set()
        self.failing = failing
        self.gate = asyncio.Event()
        if not shut:
            self.gate.set()

    def route(self, kind: str = "async", name: str = "r0", **cut: Any) -> Route:
        call = {"sync": self.at_once, "async": self.later, "threaded": self.at_once}[kind]
        return a_batch_route(call, name, threaded=kind == "threaded", **cut)

    def at_once(self, events: list[bytes], records: list[Record]) -> None:
        assert [record.value for record in records] == events
        self._begin(records)
        self._end(records)

    async def later(self, events: list[bytes], records: list[Record]) -> None:
        assert [record.value for record in records] == events
        self._begin(records)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        self.running += 1
        self._end(records)

    def _begin(self, records: list[Record]) -> None:
        self.calls.append([record.offset for record in records])
        self.running += 1
        self.most_running = max(self.most_running, self.running)

    def _end(self, records: list[Record]) -> None:
        self.running -= 1
        if self.failing in [record.offset for record in records]:
            raise ValueError
        self.done.update(record.offset for record in records)

    @property
    def offsets(self) -> list[int]:
        return [offset for call in self.calls for offset in call]


def some(count: int) -> list[Any]:
    return keyed([b"k"] * count)
