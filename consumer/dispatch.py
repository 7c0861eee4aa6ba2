"""From a raw record to its handlers' calls: decoded, matched, called in the order of the routes.

This is the inside of the hot loop, made once a partition with everything that does not change bound into closures. A
record whose handlers do not wait is done when the function returns: no task, no coroutine, no queue. Measured with the
compiled parser on 325-byte events: one sync route adds 0.2 µs to the 0.9 µs of parsing and decoding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any, Protocol

import msgspec

from consumer.errors import place_of
from consumer.handler import Handler
from consumer.record import Record, TopicPartition
from consumer.routing import Predicate
from consumer.tally import RouteTally, Tally

Dispatch = Callable[[Any], Awaitable[None] | None]
"""Takes a raw record; returns None when it is done, else what is left of it to be awaited.

Raises DecodeError or HandlerFailedError, now or when awaited.
"""


class Route(msgspec.Struct, frozen=True):
    """A match on events plus a handler, under a name."""

    name: str
    matches: Predicate | None
    handler: Handler
    tombstones: bool = False
    """Whether null values reach the handler, as an event that is None."""


class Batch(Protocol):
    """Where the events of a batch route go."""

    def add(self, event: Any, raw: Any) -> None:
        """Take one event; its record is done when the batch is."""


class HandlerFailedError(Exception):
    """A handler raised; the message names the class and the place, never the text, which may quote the event."""

    def __init__(self, route: str, error: BaseException) -> None:
        super().__init__(f"the handler of route {route!r} raised {place_of(error)}")
        self.route = route
        self.timed_out = isinstance(error, TimeoutError)


def make_dispatch(
    routes: Sequence[Route],
    decode: Callable[[bytes], Any],
    key: TopicPartition,
    tally: Tally,
    batches: dict[str, Batch],
    unmatched: Callable[[int], None],
) -> Dispatch:
    """Make the function for one partition; ``unmatched`` is told the offset of an event that no route wanted."""
    calls = [_make_call(route, key, tally.routes[route.name], batches.get(route.name)) for route in routes]

    def skip(raw: Any) -> None:
        tally.skipped += 1
        if raw.value is not None:
            unmatched(raw.offset)

    if any(route.tombstones for route in routes):
        return _several(routes, calls, decode, skip)
    if len(routes) == 1:
        return _one(routes[0], calls[0], decode, skip)
    return _several(routes, calls, decode, skip)


Call = Callable[[Any, Any], Awaitable[None] | None]
Skip = Callable[[Any], None]


def _one(route: Route, call: Call, decode: Callable[[bytes], Any], skip: Skip) -> Dispatch:
    matches = route.matches
    if matches is None:

        def all_events(raw: Any) -> Awaitable[None] | None:
            value = raw.value
            if value is not None:
                return call(decode(value), raw)
            skip(raw)
            return None

        return all_events

    def some_events(raw: Any) -> Awaitable[None] | None:
        value = raw.value
        if value is not None:
            event = decode(value)
            if matches(event):
                return call(event, raw)
        skip(raw)
        return None

    return some_events


def _several(routes: Sequence[Route], calls: Sequence[Call], decode: Callable[[bytes], Any], skip: Skip) -> Dispatch:
    steps = list(zip([route.matches for route in routes], calls, strict=True))
    for_tombstones = [call for route, call in zip(routes, calls, strict=True) if route.tombstones]

    def wanted(event: Any) -> list[Call]:
        return [call for matches, call in steps if matches is None or matches(event)]

    def dispatch(raw: Any) -> Awaitable[None] | None:
        value = raw.value
        event = decode(value) if value is not None else None
        chosen = wanted(event) if value is not None else for_tombstones
        if not chosen:
            skip(raw)
            return None
        for index, call in enumerate(chosen):
            rest = call(event, raw)
            if rest is not None:
                return _in_turn(rest, chosen[index + 1 :], event, raw)
        return None

    return dispatch


async def _in_turn(first: Awaitable[None], others: list[Call], event: Any, raw: Any) -> None:
    await first
    for call in others:
        rest = call(event, raw)
        if rest is not None:
            await rest


def _make_call(route: Route, key: TopicPartition, counts: RouteTally, batch: Batch | None) -> Call:
    """Make the call of one route: it counts, and says which route failed."""
    if batch is not None:
        return batch.add
    handle, name, is_async, wants_record = (
        route.handler.call,
        route.name,
        route.handler.is_async,
        route.handler.wants_record,
    )
    topic, partition = key

    def call(event: Any, raw: Any) -> Awaitable[None] | None:
        try:
            if wants_record:
                result = handle(
                    event, Record(topic, partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))
                )
            else:
                result = handle(event)
        except BaseException as error:
            raise HandlerFailedError(name, error) from error
        # A plain function may return a coroutine too (a lambda, a wrapper): left alone it would be a silent loss.
        if result is not None:
            if is_async or isawaitable(result):
                return awaited(result, name, counts)
            if isgenerator(result) or isasyncgen(result):
                raise HandlerFailedError(name, TypeError("a generator does nothing until it is iterated"))
        counts.handled += 1
        return None

    return call


async def awaited(result: Awaitable[Any], name: str, counts: RouteTally) -> None:
    """Await a handler's call to its end and count it; raise HandlerFailedError for whatever it raises."""
    counts.waiting += 1
    try:
        await result
    except GeneratorExit:
        raise
    except asyncio.CancelledError as error:
        # Two things look alike here: a drain that cancels this call, and a handler that lets the cancellation of some
        # task of its own escape. Taking the second for the first would end the partition's work in silence, with the
        # partition owned, heartbeats sent and nothing consumed.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise HandlerFailedError(name, error) from error
    except BaseException as error:
        raise HandlerFailedError(name, error) from error
    finally:
        counts.waiting -= 1
    counts.handled += 1
