"""The calls of handlers in a test: what each was called with, and whether it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from consumer.delivery.calls import coroutine_of
from consumer.errors import ConsumerError
from consumer.record import Position, Record
from consumer.routes.route import Route
from consumer.testing.source import GivenRecord


class NotEndedError(ConsumerError, AssertionError):
    """A call or a flush did not end, and waits for something else than time."""


class Call(msgspec.Struct, eq=False):
    """One call of a handler."""

    route: str
    event: Any
    """The event, or the list of events of a batch, as the handler got it."""
    record: Any
    """The Record, or the list of Records of a batch, also if the handler does not take it."""
    error: BaseException | None = None
    """What the call raised."""


class Work(msgspec.Struct, eq=False):
    """A call or a flush that has begun and not ended."""

    what: str
    task: asyncio.Task[Any] | None = None
    """The task that awaits it."""
    left: bool = False
    """Whether the test went on without it; the end of the block does not wait for it again."""


class Calls:
    """Notes the calls and flushes of all routes; owned by an app."""

    def __init__(self) -> None:
        self.made: list[Call] = []
        self.under_way: list[Work] = []
        self.given: dict[Position, GivenRecord] = {}
        """Every record that was given."""
        self.changed = asyncio.Event()
        """Set when a call or flush has ended."""

    def noted(self, route: Route) -> Route:
        """Return a route whose calls and flushes are noted; it behaves like the other one."""
        handler = route.handler

        def call(event: Any, records: Any) -> Any:
            made = Call(route.name, event, records)
            begin = partial(handler.call, event, *([records] if handler.wants_record else []))
            return self._begun(made, begin) if handler.is_async else self._run(made, begin)

        flush = self._noted_flush(route.name, handler.flush) if handler.flush is not None else None
        return msgspec.structs.replace(
            route, handler=msgspec.structs.replace(handler, call=call, wants_record=True, flush=flush)
        )

    async def _begun(self, made: Call, begin: Callable[[], Awaitable[Any]]) -> None:
        """Make a call when its coroutine begins, which may never happen."""
        self.made.append(made)
        await self._awaited(made, begin())

    def _run(self, made: Call, begin: Callable[[], Any]) -> Any:
        self.made.append(made)
        try:
            result = begin()
            coroutine = None if result is None else coroutine_of(result, made.route)
        except BaseException as error:
            made.error = error
            raise
        if coroutine is not None:
            return self._awaited(made, coroutine)
        self._note(made, "handled")
        return result

    async def _awaited(self, made: Call, result: Awaitable[Any]) -> None:
        records = self._records(made)
        first = Position(records[0].topic, records[0].partition, records[0].offset)
        work = self._begin(f"the call of route {made.route!r} with the record {first}")
        self._note(made, "under_way")
        try:
            await result
        except BaseException as error:
            made.error = error
            self._note(made, "waiting")
            raise
        else:
            self._note(made, "handled")
        finally:
            self._end(work)

    def _noted_flush(self, route: str, flush: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def noted() -> None:
            work = self._begin(f"the flush of route {route!r}")
            try:
                await flush()
            finally:
                self._end(work)

        return noted

    def _begin(self, what: str) -> Work:
        work = Work(what, asyncio.current_task())
        self.under_way.append(work)
        return work

    def _end(self, work: Work) -> None:
        self.under_way.remove(work)
        self.changed.set()

    def _records(self, made: Call) -> list[Record]:
        return made.record if isinstance(made.record, list) else [made.record]

    def _note(self, made: Call, outcome: str) -> None:
        for each in self._records(made):
            self.given[Position(each.topic, each.partition, each.offset)].outcomes[made.route] = outcome
