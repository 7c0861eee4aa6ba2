"""Makes an app: the daemon's parts without Kafka, from a handler, from routes or from settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from consumer.dead_letters.letter import Writer
from consumer.errors import SettingsError, hint
from consumer.observe.counters import Counters
from consumer.observe.remedy import remedy
from consumer.process.lifecycle import Lifecycle
from consumer.process.parts import make_engine, make_pipelines
from consumer.routes.imports import import_reference
from consumer.routes.load import load_routes
from consumer.routes.route import Route, enter_handlers
from consumer.routes.topics import Topics, load_schemas
from consumer.settings.checks import check_relations
from consumer.settings.sections import RouteSettings, SchemaSettings, Settings
from consumer.settings.sources import load_settings
from consumer.testing.app import App, AppParts
from consumer.testing.calls import Calls
from consumer.testing.clock import clock_of_running_loop
from consumer.testing.source import GivenSource, GivenWriter
from consumer.testing.values import Values

Entry = TypeVar("Entry", RouteSettings, SchemaSettings)
Handler = Callable[..., Any] | str
"""A handler, a class that is constructed with ``options``, or a ``module:attribute``."""


class Objects:
    """The handlers and types that a test gave as objects, by the references that stand for them in settings."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def reference(self, given: Any) -> str:
        """Return a text for settings; one that was given stays as it is."""
        if isinstance(given, str):
            return given
        name = f"{getattr(given, '__module__', '')}:{getattr(given, '__qualname__', None) or type(given).__name__}"
        while self._found.setdefault(name, given) is not given:
            name += "'"
        return name

    def find(self, reference: str, where: str) -> Any:
        """Return what a reference stands for, or import it."""
        return self._found[reference] if reference in self._found else import_reference(reference, where)


@contextlib.asynccontextmanager
async def consumer(
    handler: Handler | None = None,
    /,
    *,
    routes: Mapping[str, Handler | Mapping[str, Any]] | None = None,
    settings: Settings | Path | str | None = None,
    schemas: Mapping[str, Any] | None = None,
    limit_seconds: float = 5.0,
    **route: Any,
) -> AsyncIterator[App]:
    """Run a consumer without Kafka until the end of the block.

    ``handler`` has one route, named after it; other keywords are keys of its ``[[routes]]``. ``routes`` has a handler,
    or the keys of its ``[[routes]]``, by name. ``settings`` are a file or Settings; ``handler`` and ``routes`` replace
    theirs. ``schemas`` has the type of events, or the keys of its ``[[schemas]]``, by topic; without ``settings`` these
    are the topics.

    A call that has not ended after ``limit_seconds`` of real time makes ``give`` raise. Raises SettingsError for what
    the daemon would refuse at start.
    """
    if handler is not None:
        name = getattr(handler, "__name__", type(handler).__name__)
        if isinstance(handler, str):
            name = handler.rpartition(":")[2]
        routes = {name: {**route, "handler": handler}}
    elif route:
        raise TypeError(f"{', '.join(route)}: these are keys of a route; name a handler, or put them in routes")
    objects, path = Objects(), sys.path[:]
    made = _settings(settings, routes, schemas, objects)
    try:
        async with _app(made, objects, limit_seconds) as app:
            yield app
    finally:
        for folder in [each for each in made.path if each not in path and each in sys.path]:
            sys.path.remove(folder)


def run(handler: Handler | None = None, /, *events: Any, topic: str | None = None, **options: Any) -> App:
    """Give events to a consumer, stop it, and return it; for tests that are no coroutines.

    ``options`` are those of ``consumer``.
    """

    async def given() -> App:
        async with consumer(handler, **options) as app:
            await app.give(*events, topic=topic)
        return app

    return asyncio.run(given())


@contextlib.asynccontextmanager
async def _app(settings: Settings, objects: Objects, limit_seconds: float) -> AsyncIterator[App]:
    calls = Calls()
    loaded = load_routes(settings, os.environ, find=objects.find)
    routes = [calls.noted(_without_jitter(route)) for route in loaded]
    schemas = load_schemas(settings, objects.find)
    topics, expected = Topics(schemas, routes), Topics(schemas, routes)
    counters = Counters(settings.kafka.topics, [route.name for route in routes])
    source = GivenSource(Writer(settings.dead_letter, settings.kafka.group_id))
    lifecycle, clock = Lifecycle(), clock_of_running_loop()
    max_bytes = settings.delivery.max_record_bytes
    letters = source if settings.dead_letter.topic else None
    engine = make_engine(
        settings,
        source,
        make_pipelines(topics, max_bytes),
        counters,
        lifecycle,
        letters,
        partial(remedy, settings.kafka),
    )
    values, pipelines = Values(settings, topics), make_pipelines(expected, max_bytes)
    app = App(AppParts(lifecycle, counters, source, engine, values, pipelines, calls, clock), limit_seconds)
    async with contextlib.AsyncExitStack() as opened:
        opened.enter_context(clock.used())
        await enter_handlers(routes, opened, lambda: GivenWriter(source.written))
        await app.start()
        try:
            yield app
        finally:
            await app.stop()


def _settings(
    given: Settings | Path | str | None,
    routes: Mapping[str, Any] | None,
    schemas: Mapping[str, Any] | None,
    objects: Objects,
) -> Settings:
    """Return the settings of a test, checked as at start, and without jitter."""
    settings = given if isinstance(given, Settings) else Settings()
    if isinstance(given, Path | str):
        settings = load_settings(Path(given), {}).settings
    if schemas is not None:
        own = [_entry(SchemaSettings, "topic", "type", topic, each, objects) for topic, each in schemas.items()]
        settings = msgspec.structs.replace(settings, schemas=[*own, *settings.schemas])
        if given is None:
            kafka = msgspec.structs.replace(settings.kafka, topics=list(schemas))
            settings = msgspec.structs.replace(settings, kafka=kafka)
    if routes is not None:
        entries = [_entry(RouteSettings, "name", "handler", name, each, objects) for name, each in routes.items()]
        settings = msgspec.structs.replace(settings, routes=entries)
    retry = msgspec.structs.replace(settings.retry, jitter=0.0)
    settings = msgspec.structs.replace(settings, retry=retry)
    check_relations(settings)
    return settings


def _entry(kind: type[Entry], key: str, main: str, name: str, given: Any, objects: Objects) -> Entry:
    """Return an entry of ``[[routes]]`` or ``[[schemas]]``, of which ``given`` are the keys, or the main one."""
    table = dict(given) if isinstance(given, Mapping) else {main: given}
    fields = kind.__struct_fields__
    for each in table:
        if each not in fields or each == key:
            raise SettingsError(
                f"{name}: unknown key {each!r}{hint(each, [field for field in fields if field != key])}"
            )
    if main in table:
        table[main] = objects.reference(table[main])
    try:
        return msgspec.convert({**table, key: name}, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {error}") from None


def _without_jitter(route: Route) -> Route:
    if route.retry is None:
        return route
    return msgspec.structs.replace(route, retry=msgspec.structs.replace(route.retry, jitter=0.0))
