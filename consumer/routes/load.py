"""Loading of routes: handlers are imported by reference and constructed, matches are compiled."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

from consumer.errors import SettingsError
from consumer.routes.annotation import wants_bytes
from consumer.routes.calling import InThread, within
from consumer.routes.handler import MAX_RECORDS, MAX_SECONDS, Handler, bind_handler, first_annotation
from consumer.routes.imports import Find, import_reference
from consumer.routes.options import construct
from consumer.routes.route import Route
from consumer.routes.topics import GLOB, Topics, load_schemas
from consumer.routes.writing import check_targets
from consumer.settings.files import require_no_other_writer
from consumer.settings.sections import LOG_EVERYTHING, RouteSettings, Settings

OWN_PACKAGES = ("consumer", "schemas")


def load_routes(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    on_command_line: bool = False,
    find: Find = import_reference,
    worker: int = 0,
) -> list[Route]:
    """Import every handler and check it against the events of its topics. Raises SettingsError for the first error.

    With ``on_command_line`` the routes were given there, where no option may be a secret. ``find`` imports handlers
    and types. ``worker`` is the number of this process among several, or 0.
    """
    extend_path(settings.path, sys.path, allow_writable=settings.allow_writable)
    routes = []
    for index, each in enumerate(settings.routes or [LOG_EVERYTHING]):
        where = f"routes[{index}] ({each.name})"
        threads = settings.delivery.threads
        handler = load_handler(
            each, where, environment, threads, on_command_line=on_command_line, find=find, worker=worker
        )
        pause_on = load_exceptions(each, where)
        retry = each.retry.over(settings.retry)
        found = Route(each.name, None, handler, each.tombstones, pause_on, retry)
        of_topic = {"topics": tuple(each.topics), "match": each.match, "unknown_tags": each.unknown_tags}
        routes.append(msgspec.structs.replace(found, where=where, **of_topic))
    topics = Topics(load_schemas(settings, find), routes).check(settings.kafka.topics)
    for route in routes:
        check_targets(route, [topic for topic in topics if not GLOB.search(topic)], settings)
    return routes


def load_exceptions(route: RouteSettings, where: str) -> tuple[type[Exception], ...]:
    """Import the exceptions in a route's ``pause_on``. Raises SettingsError for one that is no exception class."""
    found = []
    for reference in route.pause_on:
        each = import_reference(reference, f"{where}.pause_on")
        if not (inspect.isclass(each) and issubclass(each, Exception)):
            raise SettingsError(f"{where}.pause_on: {reference} is not a class derived from Exception")
        found.append(each)
    return tuple(found)


def load_handler(
    route: RouteSettings,
    where: str,
    environment: Mapping[str, str],
    threads: int,
    *,
    on_command_line: bool = False,
    find: Find = import_reference,
    worker: int = 0,
) -> Handler:
    """Import a route's ``module:attribute`` and make a Handler of it; ``where`` names the route in errors.

    ``threads`` is the size of the route's pool if its calls are threaded; the others are those of ``load_routes``.

    Raises SettingsError for a wrong reference, a wrong option, a wrong signature or a wrong annotation.
    """
    target = find(route.handler, f"{where}.handler")
    if inspect.isclass(target):
        target = construct(
            target, route.options, environment, f"{where}.options", on_command_line=on_command_line, worker=worker
        )
    elif route.options:
        raise SettingsError(f"{where}.options: {route.handler} is not a class; only classes take options")
    handler = bind_handler(target, f"{where}.handler: {route.handler}")
    annotation = first_annotation(target)
    _check_fit(route, handler, where)
    call, is_async, running_since = handler.call, handler.is_async, None
    if route.threaded:
        threaded = InThread(call, threads, route.timeout_seconds)
        call, is_async, running_since = threaded, True, threaded.running_since
    elif route.timeout_seconds is not None:
        call = within(call, route.timeout_seconds)
    return msgspec.structs.replace(
        handler,
        call=call,
        is_async=is_async,
        max_records=route.max_records or MAX_RECORDS,
        max_seconds=route.max_seconds or MAX_SECONDS,
        flush_seconds=route.flush_seconds or 0.0,
        timeout_seconds=route.timeout_seconds or handler.timeout_seconds,
        running_since=running_since,
        reference=route.handler,
        annotation=annotation,
        wants_bytes=wants_bytes(annotation) or route.unknown_tags,
    )


def _check_fit(route: RouteSettings, handler: Handler, where: str) -> None:
    """Raise SettingsError for settings of a route that its handler cannot follow."""
    inline = not handler.is_async and not route.threaded
    longest = handler.timeout_seconds or 0.0
    too_short = (
        f"timeout_seconds: the handler itself ends a call after {longest:g} s, as an outage; set that at least, or"
        " leave it out, or an outage would become dead letters"
    )
    for wrong, reason in (
        (route.threaded and handler.is_async, "threaded: an async handler runs in the event loop; leave it out"),
        (route.threaded and handler.in_event_loop, "threaded: calls of this handler must not overlap; leave it out"),
        (
            route.timeout_seconds is not None and inline,
            "timeout_seconds: a plain function that runs inline cannot be stopped; make it async, or set threaded",
        ),
        ((route.timeout_seconds or math.inf) < longest, too_short),
        (
            not handler.takes_batches and (route.max_records is not None or route.max_seconds is not None),
            "max_records, max_seconds: the handler's first parameter is not annotated list[…], so it gets no batches",
        ),
        (
            route.flush_seconds is not None and handler.flush is None,
            "flush_seconds: the handler has no `async def flush(self)`",
        ),
        (
            route.tombstones and (handler.takes_batches or not handler.wants_record),
            "tombstones: the handler needs a second parameter, the Record, to tell which key was deleted",
        ),
    ):
        if wrong:
            raise SettingsError(f"{where}.{reason}")


def extend_path(folders: list[str], path: list[str], *, allow_writable: bool = False) -> None:
    """Append ``folders`` to ``path`` (``sys.path``), each once.

    Raises SettingsError for a folder that holds a module with a name of this software, or that other users may write.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise SettingsError(f"path: {folder} is not a folder")
        if not allow_writable:
            require_no_other_writer(Path(folder), f"path: {folder}")
        for name in OWN_PACKAGES:
            if PathFinder.find_spec(name, [folder]) is not None:
                raise SettingsError(
                    f"path: {folder} holds a module {name!r}, a name that this software uses; rename the module"
                )
        if os.path.abspath(folder) not in map(os.path.abspath, path):  # noqa: PTH100 - sys.path holds text
            path.append(folder)
