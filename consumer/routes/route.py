"""The route: a named match on events with a handler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from types import TracebackType
from typing import Any

import msgspec
import structlog

from consumer.errors import ConsumerError, SettingsError, place_of
from consumer.record import RawRecord
from consumer.routes.handler import Handler
from consumer.routes.match import Predicate
from consumer.settings.sections import RetrySettings

log = structlog.get_logger("consumer.routes.route")


class Route(msgspec.Struct, frozen=True):
    """A named match on events with a handler; made at start, never changed."""

    name: str
    matches: Predicate | None
    handler: Handler
    tombstones: bool = False
    """Whether records with a null value reach the handler, as the event None."""
    pause_on: tuple[type[Exception], ...] = ()
    """Exceptions that mean the same as ``Pause()``, besides ConnectionError."""
    retry: RetrySettings | None = None
    """Retry policy of the route; None for the settings in ``[retry]``."""
    topics: tuple[str, ...] = ()
    """Names and globs of its topics; empty for all."""
    match: Mapping[str, Any] = {}
    """What is compiled to ``matches`` for each topic."""
    unknown_tags: bool = False
    """Whether it gets only records whose tag no type of their topic has, as bytes."""
    where: str = "routes"
    """Name in errors about its settings."""

    def takes(self, topic: str) -> bool:
        """Whether it takes records of a topic."""
        return not self.topics or any(fnmatchcase(topic, each) for each in self.topics)


def matching(routes: Sequence[Route], event: Any, raw: RawRecord) -> list[Route]:
    """Return the routes that match an event and its record; the event None is a tombstone."""
    if event is None:
        return [route for route in routes if route.tombstones]
    return [route for route in routes if route.matches is None or route.matches(event, raw)]


def is_single(routes: Sequence[Route]) -> bool:
    """Whether there is one route only, which takes no tombstones, and no batches of bytes instead of events."""
    if len(routes) != 1:
        return False
    route, handler = routes[0], routes[0].handler
    return not route.tombstones and not (handler.takes_batches and handler.wants_bytes)


async def enter_handlers(
    routes: Sequence[Route], opened: contextlib.AsyncExitStack, make_writer: Callable[[], Any]
) -> None:
    """Enter every handler that is a context manager; one that writes to topics gets a Writer first.

    Raises SettingsError that names the route of the first that fails. A handler that fails when it is left hides no
    earlier failure.
    """
    for route in routes:
        if route.handler.expect_writer is not None:
            route.handler.expect_writer(make_writer())
        if route.handler.context is not None:
            try:
                await route.handler.context.__aenter__()
            except Exception as error:
                why = (
                    str(error) if isinstance(error, ConsumerError) else f"entering the handler raised {place_of(error)}"
                )
                raise SettingsError(f"routes ({route.name}): {why}") from error
            opened.push_async_exit(partial(_leave, route))


async def _leave(
    route: Route, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """Leave a handler; log its failure if there is an earlier one, which decides the exit code."""
    try:
        await route.handler.context.__aexit__(kind, error, trace)
    except Exception as failed:
        if error is None or failed is error:
            raise
        log.error("leaving_failed", route=route.name, error=place_of(failed))  # noqa: TRY400
