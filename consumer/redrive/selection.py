"""Selection of the letters that a redrive runs, and of their routes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from consumer.dead_letters.cause import NO_ROUTE
from consumer.dead_letters.headers import read_context
from consumer.delivery.decoding import Decoder
from consumer.delivery.pipeline import Choice
from consumer.errors import DecodeError, SettingsError
from consumer.record import Position, RawRecord, TopicPartition
from consumer.redrive.bounded_source import ends_of
from consumer.routes.annotation import check_annotation
from consumer.routes.match import wants_topic
from consumer.routes.route import Route, matching
from consumer.routes.topics import Topics
from schemas.formats import UnknownTag


class Selection:
    """The letters of one redrive, by position, with the route that each failed on; lives as long as the redrive."""

    def __init__(self, to_run: Mapping[Position, str], topics: Topics, max_record_bytes: int) -> None:
        self.to_run = to_run
        self.ends = ends_of(to_run)
        """The offset after the last letter to run, by partition."""
        self.unwanted: set[Position] = set()
        """Letters that can be decoded and match no route."""
        self._routes = {route.name: route for route in topics.routes}
        self._topics = topics
        self._max_record_bytes = max_record_bytes

    def choose(self, key: TopicPartition, raw: RawRecord) -> Choice | None:
        """Choose the routes of a letter: the route that failed, or all that match if it failed before any route.

        It is decoded as the records of its own topic are. Return None for a letter that is not to be run.
        """
        place = Position(*key, raw.offset)
        name = self.to_run.get(place)
        if name is None:
            return None
        context = read_context(raw.headers)
        reader, routes = self._topics.of(context.origin.topic if context else key.topic)
        wanted = partial(self._wanted, place, name, raw, routes)
        return Choice(Decoder(reader, self._max_record_bytes), wanted)

    def _wanted(
        self, place: Position, name: str, raw: RawRecord, routes: Sequence[Route], event: Any
    ) -> Sequence[Route]:
        if name == NO_ROUTE:
            found = matching(routes, event, raw)
        else:  # the letter of a tombstone goes only to a route that takes tombstones
            route = self._routes[name]
            if isinstance(event, UnknownTag) and not (route.unknown_tags or route.handler.wants_bytes):
                raise DecodeError("undecodable", "it has a tag that no type of its topic has")
            found = [route] if event is not None or route.tombstones else []
        if not found:
            self.unwanted.add(place)
        return found


def require_routes(to_run: Mapping[Position, str], names: Collection[str]) -> None:
    """Raise SettingsError if there are letters of routes that are not in ``names``."""
    unknown = sorted(set(to_run.values()) - {*names, NO_ROUTE})
    if unknown:
        raise SettingsError(
            f"routes: there are dead letters of {', '.join(map(repr, unknown))}, and the settings have no such route;"
            " add it, or choose other letters with --route"
        )


def require_fit(letters: Collection[tuple[str, str]], topics: Topics) -> None:
    """Raise SettingsError if a route would get events that its handler is not made for.

    ``letters`` has the topic and the route of each letter. A route that takes the topic was checked at the start; one
    that does not any more gets its letters all the same.
    """
    routes = {route.name: route for route in topics.routes}
    for topic, name in sorted(letters):
        route = routes.get(name)
        if route is None or (route.takes(topic) and wants_topic(route.match, topic, route.where)):
            continue
        kinds = [member.kind for member in topics.schema(topic).kind.members]
        where = f"{route.where}: there are dead letters of topic {topic!r}, which the route does not take any more"
        check_annotation(route.handler.annotation, kinds, topic, f"{where}; its handler {route.handler.reference}")
