"""Calls of handlers: begun without a task, awaited only when they really wait."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any

from consumer.errors import HandlerFailedError
from consumer.record import RawRecord, Record, TopicPartition
from consumer.routes.handler import Handler

Call = Callable[[Any, RawRecord], Any]
"""Takes an event and its raw record; calls the handler and returns what it returns."""


def make_call(handler: Handler, key: TopicPartition) -> Call:
    """Make the call of a handler of single events."""
    call, (topic, partition) = handler.call, key
    wants_bytes = handler.wants_bytes
    if not handler.wants_record:
        return (lambda _event, raw: call(raw.value)) if wants_bytes else (lambda event, _raw: call(event))

    def call_with_record(event: Any, raw: RawRecord) -> Any:
        headers = raw.headers
        record = Record(
            topic, partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(headers) if headers else ()
        )
        return call(raw.value if wants_bytes else event, record)

    return call_with_record


def coroutine_of(result: Any, route: str) -> Coroutine[Any, Any, Any] | None:
    """Return what a handler's call left to be awaited, as a coroutine; None when it is done.

    A plain function may return an awaitable (a lambda, a wrapper). A generator does nothing until it is iterated, so
    it raises HandlerFailedError.
    """
    if isinstance(result, types.CoroutineType):
        return result
    if isgenerator(result) or isasyncgen(result):
        raise HandlerFailedError(route, TypeError("a generator does nothing until it is iterated"))
    return _awaiting(result) if isawaitable(result) else None


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


DONE = object()
"""What a driver yields when the coroutine that it was sent has returned."""


@types.coroutine
def drive() -> Generator[Any, Any, None]:
    coroutine = yield DONE
    while True:
        yield from coroutine
        coroutine = yield DONE


class Driver:
    """Begins coroutines one after the other: each takes its first step at once, without a task.

    ``begin`` returns DONE for a coroutine that did not wait. Anything else is what the coroutine yielded to the event
    loop: then it has to be awaited by ``resume``, in the same task (timeouts and task groups inside it have noted that
    task as theirs), and another driver begins the next. After that the driver is free again, but after an exception of
    a coroutine it has ended.
    A driver instead of ``coroutine.send`` costs no StopIteration for each coroutine.
    """

    __slots__ = ("_free", "_generator", "begin")

    def __init__(self, free: list[Driver]) -> None:
        """``free`` takes it back when a coroutine that waited has returned."""
        self._free = free
        self._generator: Any = drive()
        self._generator.send(None)
        self.begin: Callable[[Coroutine[Any, Any, Any]], Any] = self._generator.send

    @types.coroutine
    def resume(self, yielded: Any) -> Generator[Any, Any, None]:
        """Await the rest of the coroutine that yielded ``yielded``."""
        generator = self._generator
        while True:
            try:
                sent = yield yielded
            except BaseException as error:
                yielded = generator.throw(error)
            else:
                yielded = generator.send(sent)
            if yielded is DONE:
                self._free.append(self)
                return
