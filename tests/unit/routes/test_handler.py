"""Any callable is a handler: how it is called, flushed and entered is read from it once."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.routes.handler import bind_handler
from tests.unit.routes.modules import WHERE, Write, load, refusal


def one(event: Any) -> Any:
    return event


def two(event: Any, record: Any) -> Any:
    return event, record


def any_number(*arguments: Any) -> Any:
    return arguments


def with_keyword(event: Any, *, limit: int = 1) -> Any:
    return event, limit


async def async_one(event: Any) -> Any:
    return event


async def async_two(event: Any, record: Any) -> Any:
    return event, record


class Sync:
    def __call__(self, event: Any) -> Any:
        return event

    def method(self, event: Any, record: Any) -> Any:
        return event, record


class Async:
    async def __call__(self, event: Any, record: Any) -> Any:
        return event, record

    async def method(self, event: Any) -> Any:
        return event


CALLABLES = [
    (one, False, False),
    (two, False, True),
    (any_number, False, True),
    (with_keyword, False, False),
    (async_one, True, False),
    (async_two, True, True),
    (lambda event: event, False, False),
    (lambda event, record: (event, record), False, True),
    (functools.partial(two, "bound"), False, False),
    (functools.partial(two, record="bound"), False, False),
    (functools.partial(async_one), True, False),
    (functools.partial(async_two), True, True),
    (Sync(), False, False),
    (Sync().method, False, True),
    (Async(), True, True),
    (Async().method, True, False),
    (str.upper, False, False),
    ([].append, False, False),
    (print, False, True),
]


@pytest.mark.parametrize(
    ("target", "is_async", "wants_record"), CALLABLES, ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))[:40]
)
def test_any_callable_is_a_handler(target: Any, is_async: bool, wants_record: bool) -> None:
    """A callable's signature alone decides whether it is awaited and gets the Record."""
    handler = bind_handler(target, WHERE)
    assert handler.call is target
    assert (handler.is_async, handler.wants_record) == (is_async, wants_record)
    assert (handler.flush, handler.context) == (None, None)


def none_at_all() -> None:
    pass


def three(event: Any, record: Any, more: Any) -> None:
    pass


def needs_keyword(event: Any, *, limit: int) -> None:
    pass


@pytest.mark.parametrize("target", [none_at_all, three, needs_keyword, functools.partial(one, "bound")])
def test_a_signature_that_no_event_fits(target: Any) -> None:
    """A callable that takes neither the event nor the event and its Record is refused with the allowed forms."""
    with pytest.raises(SettingsError, match="a handler takes the event, or the event and its Record"):
        bind_handler(target, WHERE)


@pytest.mark.parametrize("target", [3, "text", None, object()])
def test_what_cannot_be_called_is_no_handler(target: Any) -> None:
    """An object that cannot be called is refused with the route's name."""
    with pytest.raises(SettingsError) as refused:
        bind_handler(target, WHERE)
    assert str(refused.value) == f"{WHERE}: it cannot be called with an event"


def yields(event: Any) -> Iterator[Any]:
    yield event


async def yields_async(event: Any) -> Any:
    yield event


@pytest.mark.parametrize("target", [yields, yields_async])
def test_a_generator_is_no_handler(target: Any) -> None:
    """A generator function is refused, because a call would run none of it and lose every event."""
    with pytest.raises(SettingsError, match="yield"):
        bind_handler(target, WHERE)


KEEPER = """
class Keeper:
    flushed = 0
    async def __aenter__(self): return self
    async def __aexit__(self, *_): pass
    async def flush(self): self.flushed += 1
    def __call__(self, event): pass

class SyncFlush:
    def flush(self): pass
    def __call__(self, event): pass

class SyncContext:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __call__(self, event): pass

keeper = Keeper()
"""


async def test_flush_is_found(module: Write) -> None:
    """A handler's ``flush`` is the one that is awaited before a commit."""
    module(KEEPER)
    handler = load("Keeper")
    assert handler.flush is not None
    await handler.flush()
    assert handler.call.flushed == 1  # type: ignore[attr-defined]


def test_flush_must_be_async(module: Write) -> None:
    """A flush that is not async is refused, because it would block every partition."""
    module(KEEPER)
    assert refusal("SyncFlush") == f"{WHERE}.handler: mine:SyncFlush: flush must be `async def flush(self)`"


def test_an_async_context_manager_is_found(module: Write) -> None:
    """An async context manager is entered and left; a sync one is not."""
    module(KEEPER)
    for attribute in ("Keeper", "keeper"):
        handler = load(attribute)
        assert handler.context is handler.call
    assert load("SyncContext").context is None


def test_a_method_is_flushed_with_its_object(module: Write) -> None:
    """A handler that is a method of an object uses that object's flush."""
    module(KEEPER + "\nclass Table(Keeper):\n    def insert(self, event): pass\n\ntable = Table()\n")
    assert load("table.insert").flush is not None
