"""What becomes of the records of each topic: their decoder's type, and the routes that may get their events."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import msgspec

from consumer.errors import SettingsError, place_of
from consumer.routes.annotation import check_annotation
from consumer.routes.imports import Find, import_reference
from consumer.routes.match import compile_match, wants_topic
from consumer.routes.route import Route
from consumer.settings.sections import SchemaSettings, Settings
from schemas.formats import Reader, make_reader
from schemas.session import Session
from schemas.types import BYTES, EventType, event_type

GLOB = re.compile(r"[*?\[]")
SHORT = {"bytes": bytes, "dict": dict}
"""Types that need no module."""


class Schema(NamedTuple):
    """How the values of topics are decoded."""

    kind: EventType
    format: str = "json"
    framing: str = "none"


class TopicRoutes(NamedTuple):
    """How the records of one topic are decoded, and who may get their events."""

    reader: Reader
    routes: Sequence[Route]
    """With their matches compiled for the events of the topic."""


class Topics:
    """The schemas of all topics, and the routes of each; made at start, used by one event loop."""

    def __init__(self, schemas: Sequence[tuple[str, Schema]], routes: Sequence[Route]) -> None:
        """``schemas`` has pairs of a topic's name or glob and its schema; the first that fits counts."""
        self.routes = routes
        self._schemas = schemas
        self._found: dict[str, TopicRoutes] = {}

    def schema(self, topic: str) -> Schema:
        """Return how the values of a topic are decoded."""
        return next(schema for pattern, schema in self._schemas if fnmatchcase(topic, pattern))

    def of(self, topic: str) -> TopicRoutes:
        """Return the routes of a topic, and their reader. Raises SettingsError if a route does not fit its events."""
        if topic not in self._found:
            self._found[topic] = self._make(topic)
        return self._found[topic]

    def with_routes(self, routes: Sequence[Route]) -> Topics:
        """Return the same schemas with other routes."""
        return Topics(self._schemas, routes)

    def check(self, topics: Sequence[str]) -> list[str]:
        """Return the topics. Raise SettingsError if a route does not fit the events of one that it may get.

        Without ``topics`` they are those of a pattern, and not known yet: those that schemas and routes name stand for
        them. A glob of a route names none; one of a schema stands for the topics that it fits.
        """
        named = [pattern for pattern, _ in self._schemas]
        for route in self.routes:
            named += [*route.topics, *_texts(route.match.get("topic")), *_texts(route.match.get("record.topic"))]
        schemas = {pattern for pattern, _ in self._schemas}
        found = [topic for topic in topics or named if topics or topic in schemas or not GLOB.search(topic)]
        for topic in found:
            self.of(topic)
        return found

    def _make(self, topic: str) -> TopicRoutes:
        schema = self.schema(topic)
        mine = [route for route in self.routes if route.takes(topic) and wants_topic(route.match, topic, route.where)]
        if mine and all(route.handler.wants_bytes and not _looks_inside(route) for route in mine):
            schema = Schema(BYTES)  # nobody wants to know what is in them
        routes = [_fitted(route, schema.kind, topic) for route in mine]
        keep_unknown = any(route.unknown_tags for route in mine)
        return TopicRoutes(make_reader(*schema, keep_unknown=keep_unknown), routes)


def _texts(wanted: Any) -> list[str]:
    """Return the names and globs in what a match wants of the topic."""
    if isinstance(wanted, list):
        return [text for each in wanted for text in _texts(each)]
    return [wanted] if isinstance(wanted, str) else []


def _looks_inside(route: Route) -> bool:
    """Whether a route needs the decoded event, to match it or to know its tag."""
    of_records = ("header.", "record.")
    return route.unknown_tags or any(
        not name.startswith(of_records) and name not in ("key", "topic") for name in route.match
    )


def _fitted(route: Route, kind: EventType, topic: str) -> Route:
    """Return a route with its match compiled for events of a type."""
    match = compile_match(kind, route.match, route.where, unknown_tags=route.unknown_tags)
    members = [member.kind for member in match.members]
    check_annotation(route.handler.annotation, members, topic, f"{route.where}.handler: {route.handler.reference}")
    if route.handler.expect_events is not None:
        for each in members:
            _announce(route.handler.expect_events, each, topic, route.where)
    handler = msgspec.structs.replace(route.handler, wants_bytes=route.handler.wants_bytes and kind is not BYTES)
    return msgspec.structs.replace(route, matches=match.predicate or route.matches, handler=handler)


def _announce(expect_events: Callable[[type], object], kind: type, topic: str, where: str) -> None:
    """Tell a handler the class of its events. Raises SettingsError if it refuses them, or fails."""
    try:
        expect_events(kind)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error} (events of topic {topic!r})") from error
    except Exception as error:
        raise SettingsError(f"{where}: expect_events raised {place_of(error)}") from error


def load_schemas(settings: Settings, find: Find = import_reference) -> list[tuple[str, Schema]]:
    """Import the types of ``[[schemas]]``. Raises SettingsError for one that records cannot be decoded into."""
    entries = [(each, f"schemas[{number}] ({each.topic}).type") for number, each in enumerate(settings.schemas)]
    found = [(each.topic, _load(each, where, find)) for each, where in entries]
    return [*found, ("*", Schema(event_type(Session)))]


def _load(entry: SchemaSettings, where: str, find: Find) -> Schema:
    found = SHORT[entry.type] if entry.type in SHORT else find(entry.type, where)
    try:
        kind = event_type(found)
    except TypeError as error:
        raise SettingsError(f"{where}: {entry.type}: {error}") from error
    if kind is BYTES and (entry.format, entry.framing) != ("json", "none"):
        raise SettingsError(f"{where}: values of type bytes are not decoded; leave out format and framing")
    return Schema(kind, entry.format, entry.framing)
