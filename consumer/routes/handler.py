"""Handlers: a user's callable, inspected once at start to learn how it is to be called.

A handler is any callable with one parameter (the event) or two (the event and its Record), sync or async. If the first
parameter is annotated ``list[…]``, the handler gets batches. A class is constructed with the route's options.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from consumer.errors import SettingsError
from consumer.routes.annotation import EMPTY, is_list, resolved

MAX_RECORDS = 500
MAX_SECONDS = 1.0


class Handler(msgspec.Struct, frozen=True):
    """A callable and the facts needed to call it; made at start, closed with the daemon."""

    call: Callable[..., Any]
    is_async: bool
    wants_record: bool
    takes_batches: bool = False
    """Whether it takes a list of events (and a list of Records)."""
    flush: Callable[[], Awaitable[None]] | None = None
    """Makes everything handled so far durable; awaited before each commit."""
    reopen: Callable[[], object] | None = None
    """Opens its files again where their paths lead now; called at a SIGHUP."""
    expect_events: Callable[[type], object] | None = None
    """Takes the class of events that the route gets, at start; raises SettingsError for one that it cannot handle."""
    target_of: Callable[[str], str] | None = None
    """Returns the topic to which it writes the records of a topic, at the daemon's brokers."""
    expect_writer: Callable[[Any], object] | None = None
    """Takes the Writer for that (``consumer/routes/writing.py``), before it is entered."""
    counted_events: Callable[[], Any] | None = None
    """Returns its EventCounts (``consumer/observe/event_counts.py``) for the status page; called in another thread."""
    context: Any = None
    """The handler itself if it is an async context manager, else None."""
    max_records: int = MAX_RECORDS
    max_seconds: float = MAX_SECONDS
    flush_seconds: float = 0.0
    timeout_seconds: float | None = None
    """How long a call may take: by its route, or else by the handler's own ``longest_call_seconds``."""
    in_event_loop: bool = False
    """Whether threads must not call it: it shares what only the event loop changes."""
    running_since: Callable[[], float | None] | None = None
    """Returns the monotonic time at which the oldest call began that a thread runs; None if no call is threaded."""
    reference: str = ""
    """How the settings name it, as ``module:attribute``."""
    annotation: Any = EMPTY
    """Annotation of the first parameter, resolved."""
    wants_bytes: bool = False
    """Whether it takes the bytes of values instead of events."""


def bind_handler(target: Any, where: str) -> Handler:
    """Make a Handler of any callable that is not a class; ``where`` names it in errors."""
    if not callable(target):
        raise SettingsError(f"{where}: it cannot be called with an event")
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _callables(target)):
        raise SettingsError(f"{where}: it has a `yield`, so calling it would do nothing; remove the `yield`")
    parameters = _positional(target)
    return Handler(
        call=target,
        is_async=_is_async(target),
        wants_record=_wants_record(target, parameters, where),
        takes_batches=is_list(first_annotation(target)),
        flush=_flush_of(target, where),
        reopen=_plain_method_of(target, "reopen", "", where),
        expect_events=_plain_method_of(target, "expect_events", "kind", where),
        target_of=_plain_method_of(target, "target_of", "topic", where),
        expect_writer=_plain_method_of(target, "expect_writer", "writer", where),
        counted_events=_plain_method_of(target, "counted_events", "", where),
        context=target if hasattr(type(target), "__aenter__") else None,
        timeout_seconds=_method_of(target, "longest_call_seconds"),
        in_event_loop=_method_of(target, "in_event_loop") is True,
    )


def first_annotation(target: Any) -> Any:
    """Return the annotation of a handler's first parameter, resolved if it is a text; ``EMPTY`` without one."""
    parameters = _positional(target)
    return resolved(parameters[0].annotation, target) if parameters else EMPTY


def _callables(target: Any) -> list[Any]:
    """Return what runs when a callable is called: itself and its ``__call__``, or what a partial wraps."""
    if isinstance(target, functools.partial):
        return _callables(target.func)
    return [target, getattr(target, "__call__", None)]  # noqa: B004


def _is_async(target: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, _callables(target)))


def _positional(target: Any) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some builtins have none: they get only the event
        return []
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]


def _wants_record(target: Any, parameters: list[inspect.Parameter], where: str) -> bool:
    wants = len(parameters) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if parameters or not inspect.isbuiltin(target):
        try:
            inspect.signature(target).bind(*([None] * (2 if wants else 1)))
        except TypeError as error:
            raise SettingsError(f"{where}: a handler takes the event, or the event and its Record; {error}") from None
        except ValueError:
            return False
    return wants


def _flush_of(target: Any, where: str) -> Callable[[], Awaitable[None]] | None:
    flush = _method_of(target, "flush")
    if flush is not None and not inspect.iscoroutinefunction(flush):
        raise SettingsError(f"{where}: flush must be `async def flush(self)`")
    return typing.cast("Callable[[], Awaitable[None]] | None", flush)


def _plain_method_of(target: Any, name: str, parameter: str, where: str) -> Callable[..., Any] | None:
    """Return a method that is no coroutine; None without one."""
    method = _method_of(target, name)
    if method is not None and (inspect.iscoroutinefunction(method) or not callable(method)):
        parameters = f"self, {parameter}" if parameter else "self"
        raise SettingsError(f"{where}: {name} must be `def {name}({parameters})`")
    return typing.cast("Callable[..., Any] | None", method)


def _method_of(target: Any, name: str) -> Any:
    """Return a method of a handler, or of the object that its bound method belongs to; None without one."""
    owner = getattr(target, "__self__", None) if inspect.ismethod(target) else target
    return None if inspect.isroutine(owner) else getattr(owner, name, None)
