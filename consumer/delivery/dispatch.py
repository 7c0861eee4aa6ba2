"""Dispatch of a raw record: decode it, match its routes, call their handlers in the order of the routes.

The functions are made once per partition, with everything that does not change bound into closures. A record whose
handlers do not wait is done when the function returns: no task, no coroutine, no queue. If no handler can wait,
``fast_loop.py`` is faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from consumer.delivery.decoding import Decoder
from consumer.delivery.fast_loop import needs_awaiting
from consumer.delivery.pipeline import Pipeline
from consumer.errors import HandlerFailedError
from consumer.observe.counters import Counters, RouteCounters
from consumer.partition.state import Partition
from consumer.record import RawRecord, Record, TopicPartition
from consumer.routes.route import Route, matching

Dispatch = Callable[[RawRecord], Awaitable[Any] | None]
"""Takes a raw record; returns None if it is done, else an awaitable that finishes it.

Raises DecodeError or HandlerFailedError. With a single route the awaitable is the handler's own coroutine: it raises
the handler's exceptions, and the caller counts its end. (A coroutine around it would cost a tenth of the total time.)
With several routes the awaitable counts its calls itself and raises HandlerFailedError.
"""


class Batch(Protocol):
    """Destination of the events of a batch route."""

    def add(self, event: Any, raw: RawRecord) -> None:
        """Add one event; its record is done when the batch is."""


Call = Callable[[Any, RawRecord], Awaitable[Any] | None]
Unmatched = Callable[[int], None]
"""Takes the offset of an event that no route matched."""


class RouteCall(NamedTuple):
    """The call of one route in one partition."""

    name: str
    call: Call
    counts: RouteCounters


class Calls(NamedTuple):
    """The functions that process a raw record of one partition."""

    dispatch: Dispatch
    prepare: Callable[[RawRecord], Callable[[], Awaitable[Any] | None]]
    """Takes a raw record that must wait; returns a function that calls its handlers later. Its batches get the event
    at once: a batch keeps the order in which records are pulled, even if calls overtake each other. Raises DecodeError.
    """
    retry: Callable[[RawRecord, str, bool], Coroutine[Any, Any, None]]
    """Calls one route of a record again and the routes after it, or, with True, only the routes after it. The record is
    decoded again, as a handler may have changed its event. Counts its calls; raises DecodeError or HandlerFailedError.
    """
    decode_and_route: Callable[[RawRecord], tuple[Any, Sequence[Route]]]
    """Decodes a raw record; returns its event and the routes that get it."""


def make_dispatch(  # noqa: C901, PLR0915 - closures over the same names
    pipeline: Pipeline,
    partition: Partition,
    counters: Counters,
    batches: Mapping[str, Batch],
    unmatched: Unmatched,
) -> Calls:
    """Make the functions of one partition."""
    decoder, routes, choose = pipeline
    key, monotonic = partition.key, time.monotonic
    route_calls = {
        route.name: RouteCall(route.name, _make_call(route, key, counts, batches.get(route.name)), counts)
        for route in routes
        for counts in [counters.routes[route.name]]
    }

    def skip(raw: RawRecord) -> None:
        counters.skipped += 1
        if raw.value is not None:
            unmatched(raw.offset)

    match_all = partial(matching, routes)

    def decode_and_route(raw: RawRecord) -> tuple[Any, Sequence[Route]]:
        choice = match_all if choose is None else choose(key, raw)
        if choice is None:
            return None, ()
        event = None if raw.value is None else decoder.decode(raw.value)
        return event, choice(event)

    def add_to_batches(raw: RawRecord) -> tuple[Any, list[RouteCall]]:
        event, found = decode_and_route(raw)
        if not found:
            skip(raw)
        one_by_one = []
        for route in found:
            if route.handler.takes_batches:
                route_calls[route.name].call(event, raw)
            else:
                one_by_one.append(route_calls[route.name])
        return event, one_by_one

    def prepare(raw: RawRecord) -> Callable[[], Awaitable[Any] | None]:
        event, calls = add_to_batches(raw)
        return lambda: call_in_turn(calls, event, raw)

    def dispatch_to_all(raw: RawRecord) -> Awaitable[Any] | None:
        event, calls = add_to_batches(raw)
        return call_in_turn(calls, event, raw)

    def call_in_turn(calls: Sequence[RouteCall], event: Any, raw: RawRecord) -> Awaitable[Any] | None:
        began = monotonic()
        for index, (name, call, counts) in enumerate(calls):
            try:
                rest = call(event, raw)
            finally:
                now = monotonic()
                counts.inline_seconds += now - began
            began = now
            if rest is not None:
                return await_and_call_rest(rest, name, calls[index + 1 :], event, raw)
        return None

    async def await_and_call_rest(
        rest: Awaitable[Any], name: str, others: Sequence[RouteCall], event: Any, raw: RawRecord
    ) -> None:
        await await_call(rest, name, counters.routes[name], partition)
        if partition.over and others:  # the call outlived its cancellation, and the record has another owner now
            raise asyncio.CancelledError
        following = call_in_turn(others, event, raw)
        if following is not None:
            await following

    async def retry(raw: RawRecord, name: str, only_following: bool) -> None:
        event, found = decode_and_route(raw)
        calls = [route_calls[route.name] for route in found if not route.handler.takes_batches]
        failed = next(index for index, each in enumerate(calls) if each.name == name)
        rest = call_in_turn(calls[failed + 1 if only_following else failed :], event, raw)
        if rest is not None:
            await rest

    if pipeline.only is not None:
        dispatch = _make_single_dispatch(pipeline.only, route_calls[pipeline.only.name].call, decoder, skip)
        prepare_one = prepare if pipeline.only.handler.takes_batches else lambda raw: lambda: dispatch(raw)
        return Calls(dispatch, prepare_one, retry, decode_and_route)
    return Calls(dispatch_to_all, prepare, retry, decode_and_route)


def _make_single_dispatch(route: Route, call: Call, decoder: Decoder, skip: Callable[[RawRecord], None]) -> Dispatch:
    matches, first, reread, max_bytes = route.matches, decoder.first, decoder.reread, decoder.max_record_bytes
    handle = route.handler.call
    bare = route.handler.is_async and not route.handler.wants_record and not route.handler.takes_batches

    def dispatch(raw: RawRecord) -> Awaitable[Any] | None:
        value = raw.value
        if value is not None:
            try:
                event = first(value) if len(value) <= max_bytes else reread(value)
            except Exception:
                event = reread(value)
            if matches is None or matches(event):
                # Calling a coroutine function runs none of its code, so it cannot raise.
                return handle(event) if bare else call(event, raw)
        skip(raw)
        return None

    return dispatch


def _make_call(route: Route, key: TopicPartition, counts: RouteCounters, batch: Batch | None) -> Call:
    """Make the call of one route: it counts a plain function's call, and returns an async function's awaitable."""
    if batch is not None:
        return batch.add
    name, handle, wants_record = route.name, route.handler.call, route.handler.wants_record
    if not route.handler.is_async:
        return _make_plain_call(handle, name, key, counts, wants_record=wants_record)
    topic, partition = key

    def begin(event: Any, raw: RawRecord) -> Awaitable[Any]:
        try:
            if not wants_record:
                begun: Awaitable[Any] = handle(event)
            else:
                headers = tuple(raw.headers)
                begun = handle(event, Record(topic, partition, raw.offset, raw.timestamp, raw.key, raw.value, headers))
        except BaseException as error:
            raise HandlerFailedError(name, error) from error
        return begun

    return begin


def _make_plain_call(
    call: Callable[..., Any], name: str, key: TopicPartition, counts: RouteCounters, *, wants_record: bool
) -> Call:
    """Make the call of a plain function: it counts the call, and raises HandlerFailedError with the route's name."""
    topic, partition = key

    def with_record(event: Any, raw: RawRecord) -> Any:
        try:
            headers = raw.headers
            record = Record(
                topic, partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(headers) if headers else ()
            )
            result = call(event, record)
        except BaseException as error:
            raise HandlerFailedError(name, error) from error
        if result is not None and needs_awaiting(result, name):
            return result
        counts.handled += 1
        return None

    def without_record(event: Any, _raw: RawRecord) -> Any:
        try:
            result = call(event)
        except BaseException as error:
            raise HandlerFailedError(name, error) from error
        if result is not None and needs_awaiting(result, name):
            return result
        counts.handled += 1
        return None

    return with_record if wants_record else without_record


async def await_call(
    result: Awaitable[Any],
    name: str,
    counts: RouteCounters,
    partition: Partition,
    took: Callable[[float], None] | None = None,
) -> None:
    """Await the end of a handler's call and count it; raise HandlerFailedError if the handler raises.

    ``took`` receives the seconds of the call; the default is ``counts.took``.
    """
    counts.waiting += 1
    began = time.monotonic()
    try:
        await result
    except BaseException as error:
        raise failure_of(error, name, partition) from error
    finally:
        counts.waiting -= 1
        (took or counts.took)(time.monotonic() - began)
    counts.handled += 1


def failure_of(error: BaseException, name: str, partition: Partition) -> BaseException:
    """Return the meaning of an exception from an awaited call: the handler failed, or the drain cancelled it.

    A drain that cancels the call looks like a handler that cancels itself, or that lets the cancellation of a task it
    made escape. If the second were taken for the first, the partition's work would end in silence: owned, heartbeats
    sent, nothing consumed. So the drain sets ``partition.over`` before it cancels.
    """
    if isinstance(error, HandlerFailedError | GeneratorExit):
        return error
    if isinstance(error, asyncio.CancelledError) and partition.over:
        return error
    return HandlerFailedError(name, error)
