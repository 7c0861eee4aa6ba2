"""Handlers as a redrive and a replay call them: within a rate limit, with the Records of letters as first consumed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from consumer.dead_letters.headers import read_context, split_headers
from consumer.dead_letters.letter import Letter
from consumer.errors import KafkaError, LetterDelayedError, LetterRefusedError
from consumer.instructions import Pause, Retry
from consumer.kafka.letter_box import LetterBox
from consumer.record import Position, Record
from consumer.redrive.rate import RateLimit
from consumer.routes.handler import Handler
from consumer.routes.route import Route


def as_consumed(record: Record) -> Record:
    """Return a letter as its handler sees it: with the original headers and position of the record."""
    context = read_context(record.headers)
    own = tuple(split_headers(record.headers)[0])
    return msgspec.structs.replace(record, headers=own, letter_of=context.origin if context else None)


def redriven(route: Route, rate_limit: RateLimit | None) -> Route:
    """Make a route whose handler gets Records as first consumed, within a rate limit."""
    handler = route.handler

    def call(event: Any, *records: Any) -> Any:
        if handler.takes_batches:
            return handler.call(event, *([as_consumed(record) for record in each] for each in records))
        return handler.call(event, *map(as_consumed, records))

    return limited(msgspec.structs.replace(route, handler=msgspec.structs.replace(handler, call=call)), rate_limit)


def limited(route: Route, rate_limit: RateLimit | None) -> Route:
    """Make a route whose handler is called within a rate limit."""
    if rate_limit is None:
        return route
    handler = route.handler

    async def call(event: Any, *records: Any) -> Any:
        await rate_limit.wait(len(event) if handler.takes_batches else 1)
        result = handler.call(event, *records)
        return await result if inspect.isawaitable(result) else result

    max_records = min(handler.max_records, rate_limit.burst)
    return msgspec.structs.replace(
        route, handler=msgspec.structs.replace(handler, call=call, is_async=True, max_records=max_records)
    )


def republishing(letters: LetterBox, topic: str, fail: Callable[[Exception], None]) -> Route:
    """Make a route that writes the original record to another topic, whatever its event is.

    If the topic refuses a record, ``fail`` ends the redrive, and the record stays a dead letter.
    """

    async def republish(_event: Any, record: Record) -> None:
        try:
            await letters.send(Letter(topic, record.key, record.value, list(record.headers), record.timestamp_ms))
        except LetterDelayedError as delayed:
            raise Pause from delayed
        except LetterRefusedError as refused:
            place = Position(record.topic, record.partition, record.offset)
            fail(KafkaError(f"{place}: {refused}; it stays a dead letter, and so do those after it"))
            raise Retry from refused

    return Route("republish", None, Handler(republish, is_async=True, wants_record=True), tombstones=True)
