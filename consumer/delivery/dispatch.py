"""From a raw record to its handlers' calls: decoded, matched, called in the order of the routes.

Made once a partition, with everything that does not change bound into closures. A record whose handlers do not wait is
done when the function returns: no task, no coroutine, no queue. Where nothing can wait, ``fast_loop.py`` is faster.
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
from consumer.record import Record, TopicPartition
from consumer.routes.route import Route, matching

Dispatch = Callable[[Any], Awaitable[Any] | None]
"""Takes a raw record; returns None when it is done, else what is left of it to be awaited.

Raises DecodeError or HandlerFailedError. With a single route what is returned is the handler's own coroutine, whose
exceptions are the handler's and whose end the caller counts (a coroutine around it would cost a tenth of the whole).
With several it counts for itself, and raises HandlerFailedError.
"""


class Batch(Protocol):
    """Where the events of a batch route go."""

    def add(self, event: Any, raw: Any) -> None:
        """Take one event; its record is done when the batch is."""


Call = Callable[[Any, Any], Awaitable[Any] | None]
Unmatched = Callable[[int], None]
"""Told the offset of an event that no route wanted."""


class RouteCall(NamedTuple):
    """One route of one partition."""

    name: str
    call: Call
    counts: RouteCounters


class Calls(NamedTuple):
    """What can be done with a raw record of one partition."""

    dispatch: Dispatch
    early: Callable[[Any], Callable[[], Awaitable[Any] | None]]
    """Takes a raw record that cannot be called yet; returns what calls it later. Its batches get it at once: they are
    in the order in which records are pulled, also where calls overtake each other. Raises DecodeError."""
    retry: Callable[[Any, str, bool], Coroutine[Any, Any, None]]
    """Calls a record's route once more and those behind it, or (True) only those; decoded anew, as a handler may have
    changed its event. Counts for itself; raises DecodeError or HandlerFailedError."""
    chosen: Callable[[Any], tuple[Any, Sequence[Route]]]
    """Decodes a raw record; returns its event and the routes that get it."""


def make_dispatch(  # noqa: C901, PLR0915 - closures over the same names
    pipeline: Pipeline,
    partition: Partition,
    counters: Counters,
    batches: Mapping[str, Batch],
    unmatched: Unmatched,
) -> Calls:
    """Make them for one partition."""
    decoder, routes, choose = pipeline
    key, monotonic = partition.key, time.monotonic
    steps = {
        route.name: RouteCall(route.name, _make_call(route, key, counts, batches.get(route.name)), counts)
        for route in routes
        for counts in [counters.routes[route.name]]
    }

    def skip(raw: Any) -> None:
        counters.skipped += 1
        if raw.value is not None:
            unmatched(raw.offset)

    match_all = partial(matching, routes)

    def chosen(raw: Any) -> tuple[Any, Sequence[Route]]:
        choice = match_all if choose is None else choose(key, raw)
        if choice is None:
            return None, ()
        event = None if raw.value is None else decoder.decode(raw.value)
        return event, choice(event)

    def collected(raw: Any) -> tuple[Any, list[RouteCall]]:
        event, found = chosen(raw)
        if not found:
            skip(raw)
        one_by_one = []
        for route in found:
            if route.handler.takes_batches:
                steps[route.name].call(event, raw)
            else:
                one_by_one.append(steps[route.name])
        return event, one_by_one

    def early(raw: Any) -> Callable[[], Awaitable[Any] | None]:
        event, found = collected(raw)
        return lambda: begin(found, event, raw)

    def at_once(raw: Any) -> Awaitable[Any] | None:
        event, found = collected(raw)
        return begin(found, event, raw)

    def begin(found: Sequence[RouteCall], event: Any, raw: Any) -> Awaitable[Any] | None:
        began = monotonic()
        for index, (name, call, counts) in enumerate(found):
            try:
                rest = call(event, raw)
            finally:
                now = monotonic()
                counts.inline_seconds += now - began
            began = now
            if rest is not None:
                return in_turn(rest, name, found[index + 1 :], event, raw)
        return None

    async def in_turn(rest: Awaitable[Any], name: str, others: Sequence[RouteCall], event: Any, raw: Any) -> None:
        await awaited(rest, name, counters.routes[name], partition)
        if partition.over and others:  # it would not be cancelled: the record is its next owner's by now
            raise asyncio.CancelledError
        following = begin(others, event, raw)
        if following is not None:
            await following

    async def retry(raw: Any, name: str, behind: bool) -> None:
        event, routes_of = chosen(raw)
        found = [steps[route.name] for route in routes_of if not route.handler.takes_batches]
        first = next(index for index, step in enumerate(found) if step.name == name)
        rest = begin(found[first + 1 if behind else first :], event, raw)
        if rest is not None:
            await rest

    if pipeline.only is not None:
        dispatch = _one(pipeline.only, steps[pipeline.only.name].call, decoder, skip)
        later = early if pipeline.only.handler.takes_batches else lambda raw: lambda: dispatch(raw)
        return Calls(dispatch, later, retry, chosen)
    return Calls(at_once, early, retry, chosen)


def _one(route: Route, call: Call, decoder: Decoder, skip: Callable[[Any], None]) -> Dispatch:
    matches, first, reread, max_bytes = route.matches, decoder.first, decoder.reread, decoder.max_record_bytes
    handle = route.handler.call
    bare = route.handler.is_async and not route.handler.wants_record and not route.handler.takes_batches

    def dispatch(raw: Any) -> Awaitable[Any] | None:
        value = raw.value
        if value is not None:
            try:
                event = first(value) if len(value) <= max_bytes else reread(value)
            except Exception:
                event = reread(value)
            if matches is None or matches(event):
                # Calling a coroutine function runs nothing yet, so it cannot raise.
                return handle(event) if bare else call(event, raw)
        skip(raw)
        return None

    return dispatch


def _make_call(route: Route, key: TopicPartition, counts: RouteCounters, batch: Batch | None) -> Call:
    """Make the call of one route; a plain function's is counted, an async one's is returned to be awaited."""
    if batch is not None:
        return batch.add
    name, handle, wants_record = route.name, route.handler.call, route.handler.wants_record
    if not route.handler.is_async:
        return _make_use(handle, name, key, counts, wants_record=wants_record)
    topic, partition = key

    def begin(event: Any, raw: Any) -> Awaitable[Any]:
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


def _make_use(
    call: Callable[..., Any], name: str, key: TopicPartition, counts: RouteCounters, *, wants_record: bool
) -> Call:
    """Make the call of a plain function: counted, and whatever it raises says which route failed."""
    topic, partition = key

    def with_record(event: Any, raw: Any) -> Any:
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

    def alone(event: Any, _raw: Any) -> Any:
        try:
            result = call(event)
        except BaseException as error:
            raise HandlerFailedError(name, error) from error
        if result is not None and needs_awaiting(result, name):
            return result
        counts.handled += 1
        return None

    return with_record if wants_record else alone


async def awaited(
    result: Awaitable[Any],
    name: str,
    counts: RouteCounters,
    partition: Partition,
    took: Callable[[float], None] | None = None,
) -> None:
    """Await a handler's call to its end and count it; raise HandlerFailedError for whatever it raises.

    ``took`` is told the seconds; without it they are counted as those of a call.
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
    """Say what an exception out of an awaited call means: the handler failed, or the drain has cancelled it.

    Two things look alike: a drain that cancels this call, and a handler that cancels itself, or lets the cancellation
    of some task of its own escape. Taking the second for the first would end the partition's work in silence, with the
    partition owned, heartbeats sent and nothing consumed. The drain says so before it cancels.
    """
    if isinstance(error, HandlerFailedError | GeneratorExit):
        return error
    if isinstance(error, asyncio.CancelledError) and partition.over:
        return error
    return HandlerFailedError(name, error)
